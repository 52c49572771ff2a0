"""Searches of an output with an index: from the index where it can answer, otherwise from the rows."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import open_space
from pipeline.face.opened_space import Space
from pipeline.output.layout import Layout
from pipeline.output.table import Predictions
from pipeline.search import index_update
from tests.support import outputs
from tests.support.making import STORAGE, write_fragment
from tests.support.outputs import OK_ROWS, Output

DATASETS = ("007", "street a b")
QUERY = "007/00.jpg"


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Output:
    written = outputs.write_output(tmp_path_factory.mktemp("indexed") / "out", DATASETS)
    index_update.update(str(written.path), STORAGE)
    return written


@pytest.fixture
def output(indexed: Output, tmp_path: Path) -> Output:
    return outputs.placed(indexed, tmp_path / "out")


@pytest.fixture
def space(output: Output) -> Space:
    return open_space(str(output.path))


def test_the_index_answers_as_the_rows_would(space: Space) -> None:
    for asked in ({}, {"datasets": ["007"]}, {"where": "label = 'cat' AND image_id > '007/01'"}, {"k": 100}):
        found = space.search(image_id=QUERY, **asked)  # type: ignore[arg-type]
        exact = space.search(image_id=QUERY, exactly=True, **asked)  # type: ignore[arg-type]
        assert found.searched == f"The index of version {space.version} was searched."
        assert exact.searched == "Every row was compared."
        assert found.table.drop_columns("distance") == exact.table.drop_columns("distance")
        assert np.allclose(found.table["distance"], exact.table["distance"], atol=1e-3)


def test_columns_that_the_index_lacks_are_read_from_the_rows(space: Space) -> None:
    hits = space.search(image_id=QUERY, columns=["caption", "embedding"])
    assert hits.searched == f"The index of version {space.version} was searched."
    exact = space.search(image_id=QUERY, columns=["caption", "embedding"], exactly=True)
    assert hits.table.drop_columns("distance") == exact.table.drop_columns("distance")
    assert {*hits.table["caption"].to_pylist()} == {None, "a cat"}


def test_the_rows_answer_what_the_index_cannot(space: Space) -> None:
    for asked in ({"where": "caption = 'a cat'"}, {"where": "length(label) = 3"}):
        hits = space.search(image_id=QUERY, **asked)  # type: ignore[arg-type]
        assert len(hits) >= OK_ROWS // 2
        assert hits.searched.startswith("Every row was compared. The index cannot evaluate ")


def test_an_older_index_says_how_far_it_is_behind(output: Output, space: Space) -> None:
    table = Predictions.existing(str(output.path), STORAGE)
    epoch = table.claim("later", [])
    assert epoch is not None
    failed = write_fragment(str(output.path), "007", ["007/failed.jpg"], epoch)
    table.commit([failed], "later", epoch)
    found = open_space(str(output.path)).search(image_id=QUERY).searched
    assert found == f"The index of version {space.version} was searched."  # no row with a vector has changed
    ids = ["007/new-1.jpg", "007/new-2.jpg"]
    rows = outputs.ok_rows(ids, [[1.0] * outputs.DIM] * 2, {}, "u")
    table.commit([outputs.written(output.path, "007", rows, epoch)], "later", epoch)
    found = open_space(str(output.path)).search(image_id=QUERY).searched
    assert "It is 3 versions and 2 rows behind; `lakelens index` updates it." in found
    index_update.update(str(output.path), STORAGE)
    fresh = open_space(str(output.path)).search(vector=[1.0] * outputs.DIM, k=2)
    assert sorted(fresh.table["image_id"].to_pylist()) == ids
    older = space.search(image_id=QUERY).searched
    assert f"The output was opened at version {space.version}." in older


def test_a_damaged_index_leaves_the_rows(output: Output, space: Space) -> None:
    for file in Path(Layout(str(output.path)).index).rglob("*.lance"):
        file.write_bytes(b"no longer Lance")
    hits = space.search(image_id=QUERY, k=3)
    assert len(hits) == 3
    assert hits.searched.startswith("Every row was compared. The index did not answer: ")
    shutil.rmtree(Layout(str(output.path)).index)
    assert space.search(image_id=QUERY).searched.endswith("There is no index; `lakelens index` makes one.")


def test_without_lance_the_rows_are_searched(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lance.dataset", None)
    hits = space.search(image_id=QUERY)
    assert len(hits) == 10
    assert "pip install 'lakelens[search]'" in hits.searched
