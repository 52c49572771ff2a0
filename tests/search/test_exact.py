"""Exact search: the nearest rows are those that a plain sort of all cosines gives."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError, TableError
from pipeline.output.reader import PredictionsReader
from pipeline.search import exact
from tests.support import outputs
from tests.support.making import STORAGE
from tests.support.outputs import DIM, Output

DATASETS = ("007", "2024-01-01", "street a b")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return outputs.write_output(tmp_path_factory.mktemp("exact") / "out", DATASETS)


@pytest.fixture(scope="module")
def reader(output: Output) -> PredictionsReader:
    return PredictionsReader.open(str(output.path), STORAGE)


def in_order(output: Output, query: np.ndarray) -> list[tuple[float, str]]:
    """Every ok row with its cosine distance, by float64, nearest first."""

    def distance(vector: list[float]) -> float:
        return float(1 - np.dot(vector, query) / np.linalg.norm(vector) / np.linalg.norm(query))

    return sorted((distance(vector), id_) for id_, vector in output.vectors.items())


@pytest.mark.parametrize("k", [1, 5, 1000])
def test_hits_are_the_nearest_rows_of_all_files_in_order(
    output: Output, reader: PredictionsReader, k: int
) -> None:
    query = np.random.default_rng(3).normal(size=DIM).astype(np.float32)
    found = exact.nearest(reader, query, k)
    expected = in_order(output, query)[:k]
    assert found["image_id"].to_pylist() == [id_ for _, id_ in expected]
    assert np.allclose(found["distance"], [distance for distance, _ in expected], atol=1e-5)


def test_datasets_and_a_condition_limit_the_rows_and_columns_come_as_asked(
    output: Output, reader: PredictionsReader
) -> None:
    query = np.ones(DIM, np.float32)
    asked = {
        "datasets": ["007"],
        "where": "caption = 'a cat' -- of the second run",
        "columns": ["caption", "dataset"],
    }
    found = exact.nearest(reader, query, 10, **asked)
    assert found.column_names == ["caption", "dataset", "distance"]
    assert found["dataset"].to_pylist() == ["007"] * (outputs.OK_ROWS // 2)
    expected = [distance for distance, id_ in in_order(output, query) if id_.startswith("007/1")]
    assert np.allclose(found["distance"], expected, atol=1e-5)


def test_many_queries_in_one_pass_find_what_each_of_them_finds(reader: PredictionsReader) -> None:
    queries = np.random.default_rng(4).normal(size=(5, DIM)).astype(np.float32)
    together = exact.nearest_ids(reader, queries, 4)
    for found, query in zip(together, queries, strict=True):
        alone = exact.nearest(reader, query, 4)
        assert found["image_id"] == alone["image_id"]
        assert np.allclose(found["distance"], alone["distance"], atol=1e-5)


def test_rows_that_a_reader_does_not_see_are_left_out(reader: PredictionsReader) -> None:
    found = exact.nearest(reader, np.ones(DIM, np.float32), 100)
    seen = exact.with_columns(reader.only(["007"]), found, ["image_id", "dataset"])
    ids = [id_ for id_ in found["image_id"].to_pylist() if id_.startswith("007/")]
    assert seen["image_id"].to_pylist() == ids
    assert seen.column_names == ["image_id", "dataset", "distance"]


def test_no_row_that_meets_a_condition_is_no_hit(reader: PredictionsReader) -> None:
    found = exact.nearest(reader, np.ones(DIM, np.float32), 3, where="false", columns=["image_id", "label"])
    assert (found.num_rows, found.column_names) == (0, ["image_id", "label", "distance"])


def test_what_cannot_be_asked_is_one_sentence(reader: PredictionsReader) -> None:
    query = np.ones(DIM, np.float32)
    with pytest.raises(TableError, match="has no dataset 'nowhere'"):
        exact.nearest(reader, query, 3, datasets=["nowhere"])
    with pytest.raises(ConfigError, match="'nope > 1'"):
        exact.nearest(reader, query, 3, where="nope > 1")
    with pytest.raises(TableError, match="no column 'captoin'; did you mean 'caption'"):
        exact.nearest(reader, query, 3, columns=["captoin"])
    with pytest.raises(TableError, match=r"has no vector of 9 numbers"):
        exact.nearest(reader, np.ones(9, np.float32), 3)


def test_raw_vectors_equal_ones_and_zeros_have_a_place(tmp_path: Path) -> None:
    """Lengths do not matter, equal distances come in the order of ids, and zeros are at a right angle."""
    rows = {"b": [3.0, 0.0], "a": [5.0, 0.0], "zero": [0.0, 0.0], "far": [-1.0, 0.0], "near": [2.0, 0.1]}
    reader = _written(tmp_path / "out", rows)
    found = exact.nearest(reader, np.array([0.5, 0.0], np.float32), 5)
    assert found["image_id"].to_pylist() == ["a", "b", "near", "zero", "far"]
    assert found["distance"].to_pylist() == pytest.approx([0, 0, 0.00125, 1, 2], abs=1e-5)


def test_equal_rows_are_in_the_order_of_ids_across_batches(tmp_path: Path) -> None:
    """BLAS may add up in another order at another place of a batch, which must not decide."""
    vector = [float(value) for value in np.random.default_rng(5).normal(size=96).astype(np.float16)]
    reader = _written(tmp_path / "out", {f"{number * 7919 % 9000:04}": vector for number in range(9000)})
    found = exact.nearest(reader, np.array(vector, np.float32) + np.float32(0.3), 20)
    assert found["image_id"].to_pylist() == [f"{number:04}" for number in range(20)]


def test_an_output_without_ok_rows_has_no_hit(tmp_path: Path) -> None:
    assert exact.nearest(_written(tmp_path / "out", {}), np.ones(2, np.float32), 3).num_rows == 0


def _written(path: Path, vectors: dict[str, list[float]]) -> PredictionsReader:
    outputs.write_headless(path, vectors)
    return PredictionsReader.open(str(path), STORAGE)
