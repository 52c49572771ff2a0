"""Thumbnails: images of rows are read again in the sandbox. One that cannot be read has a reason instead."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from pipeline import run_configs, schema
from pipeline.errors import TableError
from pipeline.images.reader import ImageReader
from pipeline.output.reader import PredictionsReader
from pipeline.preprocessing import Preprocessing
from pipeline.search.hits import Hits
from pipeline.search.places import Place, place_of, planned, rows_of
from pipeline.space_model import last_run
from pipeline.storage.uris import BYTES_MARK

SIDE = 256
"""Width and height of a thumbnail in pixels: the middle of the image."""
QUALITY = 80
"""Of WebP: some 8 KB a thumbnail."""
BATCH = 32
"""Images that are read at once."""
STEPS = Preprocessing(None, SIDE, (SIDE, SIDE), "bilinear", (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), SIDE, SIDE)
GONE = "This version of the output does not have the row."
"""The note of a hit by an index of another version."""
CHANGED = "The image has changed since it was embedded."


@dataclass(frozen=True)
class Thumbnail:
    """A small WebP image as a `data:` URI, or None; and a sentence about what is wrong with it, or ""."""

    image: str | None
    note: str = ""


def of_hits(reader: PredictionsReader, hits: Hits) -> tuple[list[Thumbnail], Thumbnail | None]:
    """Return the thumbnails of hits, and that of their query, None if it is no image.

    The configs of the runs say how the images are reached. Raises: TableError, StorageError, ClusterError.
    """
    query, ids = hits.query, hits.table[schema.IMAGE_ID].to_pylist()
    if query.image_id is not None:
        shown, *others = _of_rows(reader, [query.image_id, *ids])
        return others, shown
    return _of_rows(reader, ids), None if query.image is None else _of_image(reader, query.image)


def _of_rows(reader: PredictionsReader, image_ids: Sequence[str]) -> list[Thumbnail]:
    """Return a thumbnail for each of these ids of the output, in their order."""
    columns = [schema.IMAGE_ID, schema.URI, "content_sha256", "run_id"]
    ids = pa.chunked_array([pa.array(image_ids, pa.string())])
    batches = reader.batches(columns, image_ids=ids) if image_ids else ()
    rows = sorted((row for batch in batches for row in batch.to_pylist()), key=itemgetter("run_id"))
    found = dict[str, Thumbnail]()
    for run_id, of_run in groupby(rows, key=itemgetter("run_id")):
        found |= _of_run(reader, run_id, list(of_run))
    return [found.get(image_id, Thumbnail(None, GONE)) for image_id in image_ids]


def _of_image(reader: PredictionsReader, image: str) -> Thumbnail:
    """Return the thumbnail of any image, given its path or URI."""
    with ImageReader(run_configs.read(reader.output, reader.storage, last_run(reader)), STEPS) as images:
        ((_, thumbnail),) = _read(images, rows_of([place_of(image)]))
    return thumbnail


def _of_run(reader: PredictionsReader, run_id: str, rows: list[dict[str, Any]]) -> dict[str, Thumbnail]:
    """Return the thumbnails of rows of one run, by id.

    The URI is enough for most images. The others are sought in the plan of the run, if it is still there.
    """
    hashes = {row[schema.IMAGE_ID]: row["content_sha256"] for row in rows}
    try:
        config = run_configs.read(reader.output, reader.storage, run_id)
    except TableError as error:
        return dict.fromkeys(hashes, Thumbnail(None, str(error)))
    with ImageReader(config, STEPS) as images:
        found = dict(zip(hashes, _read(images, rows_of([_place(row) for row in rows])), strict=True))
        other = [id_ for id_, (sha256, _) in found.items() if sha256 is None or sha256 != (hashes[id_] or sha256)]
        again = planned(reader.output, reader.storage, run_id, other) if other else schema.PENDING.empty_table()
        found |= dict(zip(again[schema.IMAGE_ID].to_pylist(), _read(images, again), strict=True))
    return {id_: _checked(thumbnail, sha256, hashes[id_]) for id_, (sha256, thumbnail) in found.items()}


def _place(row: dict[str, Any]) -> Place:
    ranged = row[schema.IMAGE_ID].startswith(row[schema.URI] + BYTES_MARK)
    return place_of(row[schema.IMAGE_ID if ranged else schema.URI])


def _checked(thumbnail: Thumbnail, sha256: str | None, expected: str | None) -> Thumbnail:
    changed = sha256 is not None and expected is not None and sha256 != expected
    return Thumbnail(thumbnail.image, f"{CHANGED} {thumbnail.note}".strip()) if changed else thumbnail


def _read(images: ImageReader, rows: pa.Table) -> Iterator[tuple[str | None, Thumbnail]]:
    """Yield the hash of each image's bytes, None if they are not there, and its thumbnail."""
    for at in range(0, rows.num_rows, BATCH):
        read = images.read(rows.slice(at, BATCH))
        pixels = iter(read.pixels.images)
        for row in read.rows.select(["content_sha256", "stage", "error_code", "message"]).to_pylist():
            if row["error_code"] is None:
                yield row["content_sha256"], Thumbnail(_data_uri(next(pixels)))
            else:
                note = f"{row['stage']} failed with {row['error_code']}: {row['message']}."
                yield row["content_sha256"], Thumbnail(None, note[0].upper() + note[1:])


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
