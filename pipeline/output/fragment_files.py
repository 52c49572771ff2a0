"""Write rows as Parquet files that no commit names yet, so that no reader sees them.

The rows of a file are ordered by `image_id`, so that readers who look for one find it in one row group and page.
"""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schema, stage_seconds
from pipeline.errors import STORE_CODES, MovedError
from pipeline.output.file_statistics import FileStatistics, statistics_columns
from pipeline.output.fragment import Fragment, RemainingRows, WriteResult
from pipeline.output.layout import Layout, fragment_path, partition_of
from pipeline.output.prediction_rows import parquet_bytes
from pipeline.storage.filesystems import Storage, failure
from pipeline.storage.uris import redacted

WRITES = 8
"""Fragments of one group of blocks that are written at once: a lake can have many small datasets."""
EXAMPLES = 3
"""Failed rows of a fragment that a message names if the run stops because of its failures."""


def write_fragments(*blocks: pa.Table, output: str, storage: Storage, epoch: int) -> list[WriteResult]:
    """Write `schema.PREDICTIONS` rows as one Parquet file for each dataset and outcome.

    Each call uses new file names, so a task may run again: only the files of its last run are committed.
    Raises: StorageError.
    """
    seconds = stage_seconds.total(blocks)
    rows = pa.concat_tables(blocks, promote_options="default").replace_schema_metadata(None).combine_chunks()
    facts = rows.select([field.name for field in rows.schema if not pa.types.is_nested(field.type)])

    def write(order: pa.Array) -> WriteResult:
        group = facts.take(order)
        dataset, outcome = (group[name][0].as_py() for name in schema.PARTITIONS)
        path = fragment_path(dataset, outcome, epoch)
        columns = rows.select(schema.fragment(rows.schema).names)
        fragment = write_file(columns, order, path, output=output, storage=storage)
        return WriteResult(fragment, _examples(group), _refused(group), _replaces(group))

    with ThreadPoolExecutor(max_workers=WRITES) as pool:
        written = list(pool.map(write, _groups(rows)))
    return [dataclasses.replace(first, seconds=seconds) for first in written[:1]] + written[1:]


def write_remaining_rows(
    path: str, newer: Sequence[str], *, output: str, storage: Storage, epoch: int
) -> RemainingRows:
    """Write the rows of a visible file whose ids are not in newer files as a new file.

    Write nothing if all rows remain, or none. Raises: MovedError if one of the files is gone, StorageError.
    """
    ids = pa.chunked_array([_ids(Layout(output).fragment(other), storage) for other in newer], pa.string())
    data = storage.read(Layout(output).fragment(path))
    if data is None:
        raise MovedError(f"{Layout(output).fragment(path)} is gone.")
    rows = _without_views(pq.read_table(pa.BufferReader(data), partitioning=None))
    others = rows.filter(pc.invert(pc.is_in(rows[schema.IMAGE_ID], ids))).combine_chunks()
    removed = rows.num_rows - others.num_rows
    if not removed or not others.num_rows:
        return RemainingRows(removed, None)
    new = fragment_path(*partition_of(path), epoch)
    return RemainingRows(removed, write_file(others, by_id(others), new, output=output, storage=storage))


def by_id(rows: pa.Table) -> pa.Array:
    """Return the indices of rows in the order of `image_id`."""
    return pc.sort_indices(rows[schema.IMAGE_ID])


def write_file(rows: pa.Table, order: pa.Array, path: str, *, output: str, storage: Storage) -> Fragment:
    """Write the rows with these indices, in this order, as a file of one dataset and outcome.

    `rows` has one chunk, because taking rows of several chunks joins them each time. Raises: StorageError.
    """
    data = parquet_bytes(rows, order)
    storage.write(Layout(output).fragment(path), data)
    statistics = FileStatistics.of(rows.select(statistics_columns(rows.schema)).take(order))
    return Fragment(path, *partition_of(path), len(order), len(data), statistics)


def _groups(rows: pa.Table) -> list[pa.Array]:
    """Return the indices of the rows of each dataset and outcome, in the order of `image_id`."""
    names = list(schema.PARTITIONS)
    ordering = [(name, "ascending") for name in names]
    grouped = rows.select(names).group_by(names).aggregate([([], "count_all")]).sort_by(ordering)
    sizes = grouped["count_all"].to_pylist()
    order = pc.sort_indices(rows, [*ordering, (schema.IMAGE_ID, "ascending")])
    return [order.slice(end - size, size) for size, end in zip(sizes, accumulate(sizes), strict=True)]


def _without_views(rows: pa.Table) -> pa.Table:
    """Cast views to plain text and bytes. delta-rs writes views, which Arrow's kernels do not all take."""

    def plain(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_list(kind):
            return pa.list_(kind.value_field.with_type(plain(kind.value_type)))
        if pa.types.is_struct(kind):
            return pa.struct([field.with_type(plain(field.type)) for field in kind])
        return {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(kind, kind)

    return rows.cast(pa.schema([field.with_type(plain(field.type)) for field in rows.schema]))


def _ids(uri: str, storage: Storage) -> pa.Array:
    """Read the ids of a file's rows. Raises: MovedError if the file is gone, StorageError."""
    fs, path = storage.filesystem(uri)
    try:
        with fs.open(path, "rb") as file:
            rows = pq.read_table(file, columns=[schema.IMAGE_ID], partitioning=None)
        return rows[schema.IMAGE_ID].combine_chunks().cast(pa.string())
    except FileNotFoundError as error:
        raise MovedError(f"{uri} is gone.") from error
    except Exception as error:
        raise failure(error, uri) from error


def _examples(group: pa.Table) -> tuple[str, ...]:
    failed = group.filter(pc.is_valid(group["error_code"])).slice(0, EXAMPLES)
    return tuple(f"{redacted(row[schema.URI])}: {row['error_code']}" for row in failed.to_pylist())


def _refused(group: pa.Table) -> int:
    """Count the rows that failed because of the store."""
    codes = pa.array([code.value for code in STORE_CODES])
    return int(pc.sum(pc.is_in(group["error_code"], codes)).as_py() or 0)


def _replaces(group: pa.Table) -> tuple[str, ...]:
    """Return the visible files that hold older rows of these ids."""
    return tuple(sorted(pc.unique(group[schema.REPLACES].drop_null()).to_pylist()))
