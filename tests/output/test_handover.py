"""What a run leaves for the next one."""

import json
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.output import handover
from pipeline.output.handover import Handover, HandoverFile
from pipeline.output.heartbeat import Heartbeat
from pipeline.storage.filesystems import Storage
from tests.support.making import STORAGE


def test_the_rate_of_an_engine_is_read_by_the_next_run_and_by_no_other_engine(tmp_path: Path) -> None:
    HandoverFile(str(tmp_path), STORAGE, Handover()).note_rate("torch", 12.3456)
    found = handover.read(str(tmp_path), STORAGE)
    assert (found.rate_of("torch"), found.rate_of("openvino"), found.cleared_up) == (12.346, None, False)


def test_a_rate_that_hardly_changes_is_not_written_again(tmp_path: Path) -> None:
    left = HandoverFile(str(tmp_path), STORAGE, Handover())
    for rate, held in [(10.0, 10.0), (10.9, 10.0), (9.1, 10.0), (11.1, 11.1), (5.0, 5.0)]:
        left.note_rate("torch", rate)
        assert handover.read(str(tmp_path), STORAGE).images_per_s == held


def test_a_run_that_measured_nothing_passes_the_rate_on_but_not_that_the_run_before_had_cleared_up(
    tmp_path: Path,
) -> None:
    HandoverFile(str(tmp_path), STORAGE, Handover(engine="torch", images_per_s=3.0, cleared_up=True))
    assert handover.read(str(tmp_path), STORAGE) == Handover(engine="torch", images_per_s=3.0)


def test_a_run_that_cleared_up_leaves_nothing_to_the_next_one(tmp_path: Path) -> None:
    assert not handover.is_uncleared(str(tmp_path), STORAGE)  # no run has begun here
    with Heartbeat(str(tmp_path), "one", STORAGE):
        left = HandoverFile(str(tmp_path), STORAGE, Handover())
        assert handover.is_uncleared(str(tmp_path), STORAGE)
        left.note_cleared_up()
    assert not handover.is_uncleared(str(tmp_path), STORAGE)


def test_the_heartbeat_of_an_older_version_is_read_as_its_handover(tmp_path: Path) -> None:
    old = {"run_id": "one", "status": "ended", "engine": "torch", "images_per_s": 7.5, "cleared_up": True}
    (tmp_path / "heartbeat.json").write_text(json.dumps(old))
    found = handover.read(str(tmp_path), STORAGE)
    assert (found.rate_of("torch"), found.cleared_up) == (7.5, True)
    assert not handover.is_uncleared(str(tmp_path), STORAGE)


def test_a_damaged_handover_is_one_sentence_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "handover.json").write_text('{"images_per_s": "many"}')
    with pytest.raises(StorageError, match=rf"^{tmp_path}/handover\.json is damaged: images_per_s: .*delete it"):
        handover.read(str(tmp_path), STORAGE)


class Full(Storage):
    def write_json(self, uri: str, value: object) -> None:
        raise StorageError("the disk is full")


def test_a_store_that_does_not_take_the_handover_does_not_end_the_run(tmp_path: Path) -> None:
    left = HandoverFile(str(tmp_path), Full(), Handover())
    left.note_rate("torch", 1.0)
    left.note_cleared_up()
    assert not (tmp_path / "handover.json").exists()
