"""Search the demo's lake with new drawings and with words, and count the nearest images of the right class."""

import base64

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import schema
from pipeline.demo.lake import CLASSES, encoded_picture
from pipeline.output import space
from pipeline.output.reader import PredictionsReader
from pipeline.search.exact import nearest_ids
from pipeline.search.images import ImageQueries
from pipeline.search.texts import TextQueries
from pipeline.space_model import last_run
from pipeline.storage.filesystems import Storage

NEAREST = 5
"""Hits of each drawing."""
DRAWINGS_STREAM = 0x1A4E_0002
"""First word of the seeds of the drawings, which no lake has."""


def share_of_class(output: str) -> float:
    """Draw one new picture of each class, and return the share of their `NEAREST` images that have its class."""
    reader = _ok_rows(output)
    vectors = ImageQueries(output, last_run(reader), Storage()).encode([_drawing(label) for label in CLASSES])
    return _share(reader, vectors)


def share_of_words(output: str) -> float:
    """Search for the name of each class, and return the share of their `NEAREST` images that have that class."""
    reader, description = _ok_rows(output), space.read(output, Storage())
    assert description is not None
    return _share(reader, TextQueries(output, description, last_run(reader), Storage()).encode(CLASSES))


def _ok_rows(output: str) -> PredictionsReader:
    return PredictionsReader.open(output, Storage()).only(outcome=schema.OK)


def _share(reader: PredictionsReader, vectors: NDArray[np.float32]) -> float:
    """Return the share of right classes among the images nearest to vectors, one for each class."""
    hits = nearest_ids(reader, vectors, NEAREST)
    ids = pa.chunked_array([chunk for found in hits for chunk in found[schema.IMAGE_ID].chunks])
    rows = [
        row for batch in reader.batches([schema.IMAGE_ID, "truth"], image_ids=ids) for row in batch.to_pylist()
    ]
    truth = {row[schema.IMAGE_ID]: row["truth"] for row in rows}
    right: list[bool] = [
        truth[image_id] == label
        for label, found in zip(CLASSES, hits, strict=True)
        for image_id in found[schema.IMAGE_ID].to_pylist()
    ]
    return sum(right) / len(right)


def _drawing(label: str) -> str:
    """Return a new picture of a class as a `data:` URI; the same one every time."""
    picture = encoded_picture(label, "png", np.random.default_rng([DRAWINGS_STREAM, CLASSES.index(label)]))
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"
