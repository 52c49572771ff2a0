"""The move to another model: what it takes, and how far two spaces agree."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pipeline import migration
from pipeline.errors import TableError
from tests.support import commands, lakes
from tests.support.histories import DIM, History
from tests.support.making import STORAGE


@pytest.fixture
def old(tmp_path: Path) -> History:
    made = History(tmp_path / "old")
    made.run(ok=[f"s{n:02}" for n in range(30)])
    made.run(ok=[f"m{n:02}" for n in range(30)], dataset="map")
    return made


def copied(old: History, path: Path, dataset: str) -> History:
    """An output with the same vectors, but in one dataset those of other runs, which are others."""
    made = History(path)
    for run_of in ("street", "map"):
        if run_of == dataset:
            made.runs += 10
        made.run(ok=[id_ for id_, (held, _) in old.rows.items() if held == run_of], dataset=run_of)
    return made


def test_a_dataset_whose_vectors_are_others_has_the_least_overlap(old: History, tmp_path: Path) -> None:
    new = copied(old, tmp_path / "new", "map")
    found = migration.compare(str(old.path), str(new.path), STORAGE, sample=60)
    assert [(one.dataset, one.images) for one in found] == [("map", 30), ("street", 30), (None, 60)]
    assert found[0].overlap + 0.1 < found[1].overlap
    assert [one.labels for one in found] == [1.0] * 3


def test_equal_spaces_have_all_neighbours_in_common(old: History) -> None:
    found = migration.compare(str(old.path), str(old.path), STORAGE, sample=40)
    assert [one.overlap for one in found] == [1.0] * 3


def test_the_overlap_is_the_share_of_common_neighbours() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(40, 4)).astype(np.float32) for _ in range(2))
    found = migration._overlap(first, second)
    for row in range(40):
        ranked = [
            [int(other) for other in np.argsort(-(vectors @ vectors[row]), kind="stable") if other != row][:10]
            for vectors in (first, second)
        ]
        assert found[row] == len({*ranked[0]} & {*ranked[1]}) / 10


def test_outputs_without_images_in_common_are_one_sentence(old: History, tmp_path: Path) -> None:
    other = History(tmp_path / "other")
    other.run(ok="xyz")
    with pytest.raises(TableError, match="has 0 of 60 sampled images"):
        migration.compare(str(old.path), str(other.path), STORAGE, sample=60)


def test_a_plan_uses_the_rate_of_the_old_output_and_says_so(
    old: History, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lakelens = partial(commands.lakelens, monkeypatch=monkeypatch)
    (old.path / "space.json").write_text(json.dumps({"format": 2, "fingerprint": "f00", "dim": DIM}))
    (tmp_path / "lake").mkdir()
    lakes.folder_of_images(tmp_path / "lake", 6)
    settings = lakes.settings(
        str(tmp_path / "lake"), str(lakes.tiny_vit(tmp_path / "model")), str(tmp_path / "new")
    )
    (tmp_path / "new.yaml").write_text(settings.to_yaml())
    command = ["migrate", str(old.path), str(tmp_path / "new.yaml"), "--plan", "--price", "7200"]
    assert lakelens(*command) == 0
    assert "No run has measured a rate" in capsys.readouterr().out
    run = old.path / "runs" / "run-002"
    run.mkdir(parents=True)
    (run / "summary.json").write_text(json.dumps(SUMMARY))
    assert lakelens(*command) == 0
    shown = capsys.readouterr().out
    assert "60 embedded images" in shown
    assert "6.00 at 7200 an hour, at 2.0 images/s, measured with the old model, tiny" in shown


SUMMARY = {
    **{"epoch": 1, "model": "tiny", "fingerprint": "f00", "run_id": "run-002", "status": "finished"},
    **{"engine": "torch", "device": "CPU", "finished_at": "2024-01-01T00:00:00+00:00", "seconds": 3.0},
    **{"images_per_s": 2.0, "worker_seconds": {}, "bottleneck": None, "versions": {}},
    "account": {"total": {}, "datasets": {}},
}
