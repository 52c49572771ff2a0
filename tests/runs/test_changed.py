"""Images that change, maintenance beside a run, and two runs at once."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from deltalake import DeltaTable

from pipeline.config import RunConfig
from pipeline.output import compaction, maintenance
from pipeline.planning.selection import Selection
from pipeline.run import run
from pipeline.storage.filesystems import Storage
from tests.support import lakes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_cluster")]
COUNT = 90
CHANGED = range(1, COUNT, 9)


def settings_of(folder: Path, model: Path, images: list[Path], versions: dict[int, str]) -> RunConfig:
    rows = [
        {"uri": str(path), "image_id": path.name, "dataset": f"d/{i % 2}", "version": versions.get(i, "1")}
        for i, path in enumerate(images)
    ]
    manifest = lakes.write_manifest(folder / "manifest.parquet", rows)
    overrides = ("output.rows_per_file=8", "output.commit_interval_s=0.2")
    return lakes.settings(manifest, model, folder / "out", *overrides)


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over a lake of which every third image is missing."""
    folder = tmp_path_factory.mktemp("finished")
    images = lakes.folder_of_images(folder / "images", COUNT)
    for path in images[::3]:
        path.rename(path.with_suffix(".away"))
    assert run(settings_of(folder, model, images, {})).account.total.failed == COUNT // 3
    return folder


@pytest.fixture
def lake(finished: Path, tmp_path: Path) -> list[Path]:
    """A copy of that lake and of its output, with the missing images there again."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "images").glob("*.away"):
        path.rename(path.with_suffix(".png"))
    return sorted((tmp_path / "images").iterdir())


def seen(output: str) -> list[tuple[str, str]]:
    """What a reader of the Delta table sees: ids and versions."""
    rows = DeltaTable(f"{output}/predictions").to_pyarrow_table(columns=["image_id", "version"])
    return list(zip(rows["image_id"].to_pylist(), rows["version"].to_pylist(), strict=True))


def check_at_rest(output: str, images: list[Path]) -> dict[str, dict[str, Any]]:
    rows = lakes.predictions(output, "image_id, version, content_sha256, outcome, attempts")
    assert [row["image_id"] for row in rows] == sorted(path.name for path in images)
    on_disk = {str(path) for path in Path(output).glob("predictions/*/*/*.parquet")}
    assert on_disk == set(DeltaTable(f"{output}/predictions").file_uris())
    for row, path in zip(rows, sorted(images), strict=True):
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if row["outcome"] == "ok" else None
        assert row["content_sha256"] == digest
    return {row["image_id"]: row for row in rows}


def test_changed_objects_take_the_place_of_their_old_rows_and_new_ones_come(
    lake: list[Path], model: Path, tmp_path: Path
) -> None:
    for number in CHANGED:
        lakes.image(1000 + number).save(lake[number])
    images = [*lake, *lakes.folder_of_images(tmp_path / "images", 5, first=500)]
    settings = settings_of(tmp_path, model, images, dict.fromkeys(CHANGED, "2"))
    looks: list[list[tuple[str, str]]] = []

    def look(_: object) -> None:
        looks.append(seen(settings.output.path))

    total = run(settings, on_progress=look).account.total
    assert (total.input, total.already_done, total.ok, total.left) == (COUNT + 5, COUNT - 10, 15, 0)
    rows = check_at_rest(settings.output.path, images)
    assert {row["version"] for name, row in rows.items() if int(name[:5]) in CHANGED} == {"2"}
    assert all(len({id_ for id_, _ in look}) == len(look) for look in looks)  # never both
    assert all({id_ for id_, _ in look} >= {path.name for path in lake} for look in looks)  # never neither
    assert run(settings).run_id is None


def test_a_run_carries_on_while_its_files_are_compacted_and_vacuumed(
    lake: list[Path], model: Path, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, model, lake, {})
    done: list[str] = []

    def maintain(_: object) -> None:
        """At each sign of progress: compaction moves the rows that the run is about to replace."""
        done.extend(one.dataset for one in compaction.compact(settings.output.path, Storage()))
        maintenance.vacuum(settings.output.path, Storage(), older_than_days=1)

    total = run(settings, selection=Selection(failed=True), on_progress=maintain).account.total
    assert (total.already_done, total.ok, total.failed) == (COUNT * 2 // 3, COUNT // 3, 0)
    assert len(done) >= 4
    rows = check_at_rest(settings.output.path, lake)
    assert {row["attempts"] for row in rows.values()} == {1, 2}


def test_of_two_runs_that_start_at_once_one_stops_with_a_sentence_that_names_the_other(
    lake: list[Path], model: Path, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "out")
    settings = settings_of(tmp_path, model, lake, {})
    (tmp_path / "config.yaml").write_text(settings.to_yaml())
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "jobs", "run", str(tmp_path / "config.yaml"), "--address", address]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    said = [process.communicate(timeout=120)[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 3], said
    (owner,) = {commit.by for commit in maintenance.history(settings.output.path, Storage()) if commit.rows}
    refused = said[codes.index(3)].strip().splitlines()[-1]
    assert refused.startswith(f"error: The run {owner} (")
    assert refused.endswith("take over with --take-over.")
    check_at_rest(settings.output.path, lake)
