"""Places of images: URIs, and ids of the output -> rows that `images.reader` can read. It opens no image."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from pipeline import schema
from pipeline.output.layout import Layout
from pipeline.storage import sql
from pipeline.storage.filesystems import Storage, failure
from pipeline.storage.uris import BYTES_MARK, ROW_MARK, absolute, join

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


def planned(output: str, storage: Storage, run_id: str, image_ids: Sequence[str]) -> pa.Table:
    """Return the rows of a run's plan that have these ids, with the columns of `schema.PENDING`.

    Only a plan knows every byte range, and the whole text of a `data:` URI. The result is empty if the plan is
    gone, as after a vacuum, or an older LakeLens made it. Raises: StorageError.
    """
    folder = Layout(output).run(run_id).pending
    fs, root = storage.filesystem(folder)
    try:
        files = [join(folder, path.rsplit("/", 1)[-1]) for path in fs.glob(f"{root}/*.parquet")]
        if files:
            return _rows_with(files, storage, image_ids)
    except duckdb.Error:
        return schema.PENDING.empty_table()
    except Exception as error:
        raise failure(error, folder) from error
    return schema.PENDING.empty_table()


def _rows_with(files: Sequence[str], storage: Storage, image_ids: Sequence[str]) -> pa.Table:
    columns, ids = ", ".join(map(sql.quoted, schema.PENDING.names)), ", ".join(map(sql.literal, image_ids))
    with duckdb.connect() as connection:
        sql.register_stores(connection, files, storage)
        rows = connection.sql(f"SELECT {columns} FROM read_parquet({sql.files(files)}) WHERE image_id IN ({ids})")
        return rows.to_arrow_table().cast(schema.PENDING)
