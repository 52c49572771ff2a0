"""The output of a real run, opened from Python: through Ray Data, and verified."""

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.face.opened_space import Space, open_space
from pipeline.run import run
from tests.support import lakes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_cluster")]

OK, BROKEN = 20, 2


@pytest.fixture(scope="module")
def opened(local_cluster: None, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Space:
    """The output of a run over 20 good and 2 broken images in two datasets."""
    folder = tmp_path_factory.mktemp("opened")
    paths = lakes.folder_of_images(folder / "images", OK)
    for number in range(BROKEN):
        paths.append(folder / f"broken-{number}.jpg")
        paths[-1].write_text("no image")
    rows = [
        {"image_id": path.name, "uri": str(path), "dataset": "007" if number % 2 else "2024-01-01"}
        for number, path in enumerate(paths)
    ]
    summary = run(lakes.settings(lakes.write_manifest(folder / "manifest.parquet", rows), model, folder / "out"))
    return open_space(summary.output)


def test_ray_reads_the_same_rows_as_arrow_with_datasets_as_text(opened: Space) -> None:
    columns = ["image_id", "dataset", "outcome", "label"]
    rows = opened.to_ray(columns, outcome=None).take_all()
    expected = opened.to_arrow(columns, outcome=None).to_pylist()
    assert sorted(rows, key=lambda row: row["image_id"]) == sorted(expected, key=lambda row: row["image_id"])
    assert len(rows) == OK + BROKEN
    assert {row["dataset"] for row in rows} == {"007", "2024-01-01"}


def test_ray_reads_only_what_is_asked_for(opened: Space) -> None:
    rows = opened.to_ray(["image_id"], datasets=["007"], where="image_id > '00010'").take_all()
    assert rows == opened.to_arrow(["image_id"], datasets=["007"], where="image_id > '00010'").to_pylist()
    assert {frozenset(row) for row in rows} == {frozenset(["image_id"])}
    with pytest.raises(ConfigError, match="'nope = 1'"):
        opened.to_ray(where="nope = 1")


def test_a_condition_that_no_row_meets_leaves_the_columns(opened: Space) -> None:
    found = opened.to_ray(["image_id", "embedding"], where="false").materialize()
    assert found.count() == 0
    assert found.schema().names == ["image_id", "embedding"]


def test_a_space_is_verified_by_the_config_of_its_run(opened: Space, model: Path) -> None:
    verdict = opened.verify(sample=6)
    assert verdict.model == str(model)
    assert verdict.agreements[-1].images == 6
    assert verdict.agreements[-1].cosine_min > 0.99999
