"""Rows in, the same rows with pixels or an error out; without Ray."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.config import RunConfig, parse
from pipeline.images.pixels import DensePixels
from pipeline.images.reader import ImageReader
from pipeline.models.processor import read_preprocessing
from tests.support.making import encoded, photo

STEPS = read_preprocessing({"image_processor_type": "ViTImageProcessor", "size": 32}, "m")


@pytest.fixture
def settings(tmp_path: Path) -> RunConfig:
    return parse({"manifest": {"path": "unused"}, "output": {"path": str(tmp_path / "out")}})


def pending(folder: Path, files: list[bytes | None]) -> pa.Table:
    """A row per file; None is a file that is not there."""
    rows = []
    for number, data in enumerate(files):
        path = folder / f"{number}"
        if data is not None:
            path.write_bytes(data)
        rows.append({"image_id": path.name, "uri": str(path), "dataset": "d", schema.TRIES: number})
    return pa.Table.from_pylist(rows, schema=schema.PENDING)


def test_every_row_has_its_pixels_or_its_error_and_the_figures_are_those_of_the_files(
    settings: RunConfig, tmp_path: Path
) -> None:
    files = [encoded(photo(60, 40)), None, b"no image", encoded(photo(50, 70, seed=1))]
    with ImageReader(settings, STEPS) as reader:
        block = reader.read(pending(tmp_path, files))
    rows = block.rows.to_pylist()
    assert [row["error_code"] for row in rows] == [None, "not_found", "unsupported_format", None]
    assert [(row["width"], row["height"]) for row in rows] == [(60, 40), (None, None), (None, None), (50, 70)]
    assert [row["attempts"] for row in rows] == [1, 2, 3, 4]  # those of earlier runs count
    hashes = [None if data is None else hashlib.sha256(data).hexdigest() for data in files]
    assert [row["content_sha256"] for row in rows] == hashes
    assert block.pixels.decoded.tolist() == [True, False, False, True]
    assert block.fetched_bytes == sum(len(data) for data in files if data is not None)
    assert block.fetch_s > 0


def test_the_table_holds_the_pixels_as_they_are(settings: RunConfig, tmp_path: Path) -> None:
    with ImageReader(settings, STEPS) as reader:
        block = reader.read(pending(tmp_path, [encoded(photo(60, 40)), None]))
        again = reader.read(pending(tmp_path, []))
    assert block.table().column_names == [*schema.PENDING.names, *schema.DECODED.names, schema.PIXELS]
    found = DensePixels.from_rows(block.table(), STEPS.height, STEPS.width)
    np.testing.assert_array_equal(found.images, block.pixels.images)
    assert (again.table().num_rows, again.pixels.images.shape) == (0, (0, 32, 32, 3))
