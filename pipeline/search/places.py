"""Places of images: URIs -> rows that `images.reader` can read. This module opens no image."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline import schema
from pipeline.storage.uris import BYTES_MARK, ROW_MARK, absolute

_ROW = re.compile(rf"(.+){ROW_MARK}(\d+)", re.DOTALL)
_RANGE = re.compile(rf"(.+){BYTES_MARK}(\d+)-(\d+)", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """Where an image is: behind a URI, perhaps in a range of its bytes, or in a row of a Parquet manifest."""

    uri: str
    offset: int | None = None
    length: int | None = None
    carried_in: str | None = None
    row: int | None = None


def place_of(uri: str) -> Place:
    """Return the place that a path or URI names.

    As outputs write them, `<manifest>#row=<number>` is an image that a manifest carries, and
    `<uri>#bytes=<first>-<last>` a byte range. Raises: StorageError for a home folder that does not exist.
    """
    if carried := _ROW.fullmatch(uri):
        return Place(uri, carried_in=absolute(carried[1]), row=int(carried[2]))
    if ranged := _RANGE.fullmatch(uri):
        first, last = int(ranged[2]), int(ranged[3])
        return Place(absolute(ranged[1]), first, last + 1 - first)
    return Place(absolute(uri))


def rows_of(places: Sequence[Place]) -> pa.Table:
    """Return the places as rows with the columns of `schema.PENDING`, in the same order."""
    rows = [
        {
            schema.IMAGE_ID: place.uri,
            schema.URI: place.uri,
            schema.DATASET: "",
            schema.OFFSET: place.offset,
            schema.LENGTH: place.length,
            schema.CARRIED_IN: place.carried_in,
            schema.ROW: place.row,
        }
        for place in places
    ]
    return pa.Table.from_pylist(rows, schema=schema.PENDING)
