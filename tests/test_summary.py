"""What a run says that it did."""

import json
from pathlib import Path

import pytest

from pipeline import summary
from pipeline.errors import StorageError
from pipeline.planning.account import Account, Counts
from pipeline.stage_seconds import Seconds
from pipeline.summary import Summary
from tests.support.making import STORAGE

DESCRIPTION = {"model": "some/vit", "fingerprint": "abc123", "dim": 8}
DONE = Summary(
    "out",
    Account({"a": Counts(input=3, ok=2, failed=1)}),
    "run",
    seconds=2.0,
    engine="torch",
    device="CPU",
    worker_seconds=Seconds(predict=1.23456),
)


def test_a_summary_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = DONE.record(7, DESCRIPTION)
    record.write(str(tmp_path), STORAGE)
    assert summary.read(str(tmp_path), STORAGE) == record
    assert (record.epoch, record.model, record.images_per_s) == (7, "some/vit", 1.5)
    assert record.account.total == Counts(input=3, ok=2, failed=1)


def test_the_file_has_the_facts_of_the_log_and_the_space(tmp_path: Path) -> None:
    DONE.record(7, DESCRIPTION).write(str(tmp_path), STORAGE)
    written = json.loads((tmp_path / "summary.json").read_text())
    facts = DONE.facts()
    assert list(written) == ["epoch", "model", "fingerprint", *facts]
    assert {key: written[key] for key in facts if key != "finished_at"} == json.loads(
        json.dumps({key: value for key, value in facts.items() if key != "finished_at"})
    )


def test_a_run_that_has_not_finished_has_none(tmp_path: Path) -> None:
    assert summary.read(str(tmp_path), STORAGE) is None


def test_what_a_newer_version_adds_is_kept_and_what_is_damaged_is_one_sentence(tmp_path: Path) -> None:
    DONE.record(7, DESCRIPTION).write(str(tmp_path), STORAGE)
    file = tmp_path / "summary.json"
    written = json.loads(file.read_text())
    file.write_text(json.dumps(written | {"mood": "good"}))
    found = summary.read(str(tmp_path), STORAGE)
    assert found is not None
    assert found.model_dump()["mood"] == "good"
    for damage in ("", "[]", json.dumps(written | {"epoch": "seven"})):
        file.write_text(damage)
        with pytest.raises(StorageError, match=rf"^{file} is damaged: .*\.$"):
            summary.read(str(tmp_path), STORAGE)
