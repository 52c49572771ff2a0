"""Failed rows are tried again, and each takes the place of its old row."""

import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipeline.config import RunConfig
from pipeline.errors import FailureRateError
from pipeline.output import failed_rows
from pipeline.planning.selection import Selection
from pipeline.run import run
from pipeline.storage.filesystems import Storage
from tests.support import lakes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_cluster")]
FAILED = Selection(failed=True)


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over 120 images: every third is missing, every sixth is no image, the rest are good."""
    folder = tmp_path_factory.mktemp("finished")
    for number, path in enumerate(lakes.folder_of_images(folder / "images", 120)):
        if number % 3 == 0:
            path.rename(path.with_suffix(".away"))
        elif number % 6 == 1:
            path.write_text("no image")
    total = run(config_of(folder, model)).account.total
    assert (total.ok, total.failed) == (60, 60)
    return folder


def config_of(folder: Path, model: Path) -> RunConfig:
    names = (f"{i:05}{'.png' if i % 3 == 0 else '.jpg'}" for i in range(120))
    rows = [
        {"uri": str(folder / "images" / name), "image_id": name, "dataset": f"d {i // 30 % 2}%"}
        for i, name in enumerate(names)
    ]
    manifest = lakes.write_manifest(folder / "manifest.parquet", rows)
    overrides = ("output.rows_per_file=4", "output.commit_interval_s=0.1", "failures.max_rate=0.6")
    return lakes.settings(manifest, model, folder / "out", *overrides)


@pytest.fixture
def settings(finished: Path, model: Path, tmp_path: Path) -> RunConfig:
    """A copy of that lake and of its output."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return config_of(tmp_path, model)


def bring_back(settings: RunConfig, *, every: int = 1) -> int:
    """The missing images are there again; returns how many."""
    away = sorted((Path(settings.output.path).parent / "images").glob("*.away"))[::every]
    for path in away:
        path.rename(path.with_suffix(".png"))
    return len(away)


def check_at_rest(settings: RunConfig) -> dict[str, tuple[str, str | None, int]]:
    """Every image is one row, for those who glob and for those who read Delta; returns what became of each."""
    output = Path(settings.output.path)
    rows = lakes.predictions(output, "image_id, outcome, error_code, attempts, embedding")
    assert len(rows) == len({row["image_id"] for row in rows}) == 120
    on_disk = {str(path) for path in output.glob("predictions/*/*/*.parquet")}
    assert on_disk == set(DeltaTable(str(output / "predictions")).file_uris())
    assert all((row["embedding"] is None) == (row["outcome"] == "failed") for row in rows)
    return {row["image_id"]: (row["outcome"], row["error_code"], row["attempts"]) for row in rows}


def test_failed_rows_move_to_ok_with_their_attempts_and_no_reader_sees_one_twice_or_not_at_all(
    settings: RunConfig,
) -> None:
    table = DeltaTable(f"{settings.output.path}/predictions")
    before = table.version()
    bring_back(settings)
    seen = []

    def look(_: object) -> None:
        rows = DeltaTable(f"{settings.output.path}/predictions").to_pyarrow_table(columns=["image_id", "outcome"])
        seen.append(
            (rows.num_rows, len(set(rows["image_id"].to_pylist())), rows["outcome"].to_pylist().count("ok"))
        )

    total = run(settings, selection=FAILED, on_progress=look).account.total
    assert (total.input, total.already_done, total.ok, total.failed, total.left) == (120, 60, 40, 20, 0)
    look(None)
    assert {(rows, ids) for rows, ids, _ in seen} == {(120, 120)}
    assert seen[-1][2] == 100
    table.update_incremental()
    assert table.version() > before + 2  # the rows moved in several commits
    found = check_at_rest(settings)
    for number, (_, outcome) in enumerate(sorted(found.items())):
        if number % 3 == 0:
            assert outcome == ("ok", None, 2)
        elif number % 6 == 1:
            assert outcome == ("failed", "unsupported_format", 2)
        else:
            assert outcome == ("ok", None, 1)
    found_failed = failed_rows.count_failures(settings.output.path, Storage())
    codes = {one.error_code: sum(other.rows for other in found_failed) for one in found_failed}
    assert codes == {"unsupported_format": 20}
    assert run(settings).run_id is None


def test_only_the_codes_that_are_named_are_tried_again(settings: RunConfig) -> None:
    bring_back(settings, every=2)
    total = run(settings, selection=Selection(failed=True, codes=("not_found",))).account.total
    assert (total.already_done, total.ok, total.failed) == (80, 20, 20)
    attempts = {code: tries for _, code, tries in check_at_rest(settings).values() if code}
    assert attempts == {"not_found": 2, "unsupported_format": 1}


def test_rows_that_the_output_lacks_are_not_selected(settings: RunConfig, tmp_path: Path) -> None:
    new = lakes.folder_of_images(tmp_path / "new", 5, first=500)
    rows = [{"uri": str(path), "image_id": path.name} for path in new]
    more = lakes.write_manifest(tmp_path / "more.parquet", rows)
    paths = (*settings.manifest.path, str(more))
    both = settings.model_copy(update={"manifest": settings.manifest.model_copy(update={"path": paths})})
    total = run(both, selection=FAILED).account.total
    assert (total.input, total.already_done, total.not_selected, total.failed) == (125, 60, 5, 60)
    total = run(both).account.total
    assert (total.already_done, total.ok) == (120, 5)


def test_failed_rows_that_fail_again_do_not_stop_the_run_but_a_store_that_refuses_all_does(
    model: Path, tmp_path: Path
) -> None:
    rows = [{"uri": f"/nowhere/{i}.jpg"} for i in range(40)]
    manifest = lakes.write_manifest(tmp_path / "m.parquet", rows)
    settings = lakes.settings(manifest, model, tmp_path / "out", "failures.min_rows=20", "failures.max_rate=1")
    run(settings)
    strict = settings.model_copy(update={"failures": settings.failures.model_copy(update={"max_rate": 0.5})})
    total = run(strict, selection=FAILED).account.total
    assert (total.failed, total.already_done) == (40, 0)

    dead = [{"uri": f"http://127.0.0.1:9/{i}.jpg"} for i in range(12)]
    settings = lakes.settings(lakes.write_manifest(tmp_path / "dead.parquet", dead), model, tmp_path / "dead")
    with pytest.raises(FailureRateError, match=r"^12 of the first 12 images failed, .*: unavailable, "):
        run(settings)
    assert list((tmp_path / "dead" / "predictions").glob("*/*/*.parquet")) == []
