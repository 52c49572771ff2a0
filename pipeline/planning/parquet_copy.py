"""Copy manifest files that DuckDB cannot read as they are to Parquet files in a scratch folder.

CSV and JSON lines become columns of text. A Parquet file is copied if it uses a column name of DuckDB's, is
behind a URL, or has text that is not UTF-8; images in it are not copied. It does not know what the columns mean.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import LakeLensError, ManifestError, StorageError, first_line
from pipeline.planning import csv_rows, json_rows, text
from pipeline.planning.text import BATCH_ROWS, Rows
from pipeline.schema import ORDINAL, ROW_BITS, SOURCE, UNREADABLE
from pipeline.storage.filesystems import Storage, failure
from pipeline.storage.uris import redacted

LINES_NAMED = 20
"""Values of one column of a file that are named with their line; further ones are only counted."""
BATCH_BYTES = 1 << 26
"""Bytes of Parquet columns that are in memory at once, about."""
EXACT = 2.0**53
"""Up to here every whole number is also a floating-point number."""

Place = Callable[[int], str]
"""Map the index of a row in its batch to its place in the file, such as `line 7`."""


@dataclass(frozen=True)
class RequestedColumns:
    """The columns that a run asks for, in lower case: `names`, or `every` one.

    A row is invalid if the value of one of its `keys` is not UTF-8; in other columns such a value becomes null. In
    `ids`, a whole number that is written as 7.0 becomes the text 7.
    """

    names: Collection[str] = ()
    every: bool = False
    keys: Collection[str] = ()
    ids: Collection[str] = ()


@dataclass
class ParquetCopy:
    """Parquet files with the rows of one manifest file, in order.

    They have the columns of `schema`, and `SOURCE`, `ORDINAL` and `UNREADABLE`. `nulled` has the requested columns
    with values that are not UTF-8, except keys: the number of these values, and the place of the first one.
    """

    files: list[str] = field(default_factory=list)
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    rows: int = 0
    nulled: dict[str, tuple[int, str]] = field(default_factory=dict)


class CopyWriter:
    """Writes the rows of one manifest file below a folder; `number` is the file's position in the manifest.

    JSON lines may introduce a column late. There the writer starts another Parquet file; DuckDB reads nulls from
    the files that lack the column.
    """

    def __init__(self, uri: str, number: int, folder: Path, requested: RequestedColumns) -> None:
        self.uri, self.requested, self.done = uri, requested, ParquetCopy()
        self._number, self._folder = number, folder
        self._file: pq.ParquetWriter | None = None
        self._named: dict[str, int] = {}

    def __enter__(self) -> "CopyWriter":
        return self

    def __exit__(self, *raised: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, rows: pa.Table, size: int, unchecked: Collection[str], place: Place) -> None:
        """Write `size` rows. `unchecked` are binary columns that must become text, and structs with text in them.

        Raises: StorageError.
        """
        invalid: dict[int, str] = {}
        for name in unchecked:
            index = rows.column_names.index(name)
            values, bad = _checked(rows.column(index))
            rows = rows.set_column(index, name, values)
            self._note(name, bad, place, invalid)
        self._append(rows, size, [invalid.get(row) for row in range(size)] if invalid else None)

    def _note(self, name: str, bad: list[int], place: Place, invalid: dict[int, str]) -> None:
        """Record the values of a column that are not UTF-8, in `invalid` by row if the column is a key."""
        if not bad or not (self.requested.every or name.casefold() in self.requested.names):
            return
        if name.casefold() not in self.requested.keys:
            values, first = self.done.nulled.get(name, (0, place(bad[0])))
            self.done.nulled[name] = (values + len(bad), first)
            return
        for row in bad:
            self._named[name] = self._named.get(name, 0) + 1
            where = f" ({place(row)} of {redacted(self.uri)})" if self._named[name] <= LINES_NAMED else ""
            invalid.setdefault(row, f"{name} is not UTF-8{where}")

    def _append(self, rows: pa.Table, size: int, reasons: list[str | None] | None) -> None:
        known = self.done.schema.names
        new = [field for field in rows.schema if field.name not in known]
        if self._file is None or new:
            self._start(pa.schema([*self.done.schema, *new]))
        assert self._file is not None
        first = (self._number << ROW_BITS) + self.done.rows
        there = {
            **dict(zip(rows.column_names, rows.columns, strict=True)),
            SOURCE: pa.repeat(self.uri, size),
            ORDINAL: pa.array(np.arange(first, first + size, dtype=np.int64)),
            UNREADABLE: pa.array(reasons, pa.string()) if reasons else pa.nulls(size, pa.string()),
        }
        schema = self._file.schema
        columns = [there[field.name] if field.name in there else pa.nulls(size, field.type) for field in schema]
        try:
            self._file.write_table(pa.table(columns, schema=schema))
        except OSError as error:
            reason = error.strerror or "it may be full"
            raise StorageError(
                f"Cannot write to the temporary folder {self._folder}: {reason}. Free space there, or set TMPDIR."
            ) from error
        self.done.rows += size

    def _start(self, schema: pa.Schema) -> None:
        if self._file is not None:
            self._file.close()
        added = [(SOURCE, pa.string()), (ORDINAL, pa.int64()), (UNREADABLE, pa.string())]
        path = str(self._folder / f"rewritten-{self._number}-{len(self.done.files)}.parquet")
        self._file = pq.ParquetWriter(path, pa.schema([*schema, *added]), compression="lz4", store_schema=False)
        self.done.files.append(path)
        self.done.schema = schema


def csv(writer: CopyWriter, storage: Storage) -> ParquetCopy:
    """Copy a CSV file. Raises: ManifestError that names the line, StorageError."""
    with writer, text.opened(writer.uri, storage, newline="") as lines:
        for batch in csv_rows.rows(lines, writer.requested.names):
            writer.write(*_textual(batch, writer.requested))
    return writer.done


def json_lines(writer: CopyWriter, storage: Storage) -> ParquetCopy:
    """Copy a JSON lines file. Raises: ManifestError that names the line, StorageError."""
    with writer, text.opened(writer.uri, storage, newline="\n") as lines:
        for batch in json_rows.rows(lines, writer.requested.names):
            writer.write(*_textual(batch, writer.requested))
    return writer.done


def parquet(writer: CopyWriter, storage: Storage, left_out: Collection[str]) -> ParquetCopy:
    """Copy a Parquet file without some columns. Raises: ManifestError, StorageError."""
    with writer, parquet_file(writer.uri, storage) as file:
        every = file.schema_arrow.names
        names = [name for name in every if name not in left_out and every.count(name) == 1]
        schema = pa.schema([file.schema_arrow.field(name) for name in names])
        empty = pa.RecordBatch.from_pylist([], schema=schema)
        for batch in chain([empty], file.iter_batches(_batch_rows(file.metadata, names), columns=names)):
            rows = pa.Table.from_batches([batch])
            writer.write(*_unchecked(rows, batch.num_rows, writer.done.rows))
    return writer.done


def _batch_rows(metadata: pq.FileMetaData, names: Collection[str]) -> int:
    """Return how many rows of these columns take about `BATCH_BYTES`: between 1 and `BATCH_ROWS`."""
    widest = 1.0  # bytes of a row, in the row group with the longest ones
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = map(group.column, range(group.num_columns))
        size = sum(
            chunk.total_uncompressed_size
            for chunk in chunks
            if f"{chunk.path_in_schema}.".startswith(tuple(f"{name}." for name in names))
        )
        widest = max(widest, size / max(group.num_rows, 1))
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES / widest)))


@contextmanager
def parquet_file(uri: str, storage: Storage) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file. Raises: ManifestError for one that is damaged, StorageError."""
    fs, path = storage.filesystem(uri)
    try:
        with fs.open(path, "rb") as file:
            yield pq.ParquetFile(file, pre_buffer=False, buffer_size=text.BUFFER_BYTES)
    except LakeLensError:
        raise
    except (pa.ArrowException, EOFError) as error:
        raise ManifestError(f"Cannot read the manifest {redacted(uri)}: {first_line(error)}.") from error
    except Exception as error:
        raise failure(error, uri) from error


def _textual(batch: Rows, requested: RequestedColumns) -> tuple[pa.Table, int, Collection[str], Place]:
    """Return columns of text, or of bytes where a value is not UTF-8: the arguments of `CopyWriter.write`."""
    columns, unchecked = {}, []
    for name, values in batch.columns.items():
        if isinstance(values, pa.Array):
            columns[name] = values
            continue
        texts = _without_points(values) if name.casefold() in requested.ids else values
        try:
            columns[name] = pa.array(texts, pa.string())
        except UnicodeEncodeError:
            raw = [None if value is None else value.encode("utf-8", "surrogatepass") for value in texts]
            columns[name] = pa.array(raw, pa.binary())
            unchecked.append(name)
    return pa.table(columns), len(batch.lines), unchecked, lambda row: f"line {batch.lines[row]}"


def _without_points(values: list[str | None]) -> list[str | None]:
    """Map 7.0 to 7: pandas writes whole numbers so if one is missing in the column."""
    return [
        str(int(float(value))) if isinstance(value, json_rows.Decimal) and _is_whole(float(value)) else value
        for value in values
    ]


def _is_whole(number: float) -> bool:
    return number.is_integer() and abs(number) < EXACT


def _unchecked(rows: pa.Table, size: int, first: int) -> tuple[pa.Table, int, Collection[str], Place]:
    """Return Parquet rows with their text as unchecked bytes: the arguments of `CopyWriter.write`."""
    unchecked = []
    for index, name in enumerate(rows.column_names):
        column = rows.column(index)
        if pa.types.is_dictionary(column.type):
            column = pa.chunked_array(
                [chunk.dictionary_decode() for chunk in column.chunks], column.type.value_type
            )
        if _is_string(column.type):
            column = pa.chunked_array([_as_bytes(chunk) for chunk in column.chunks], _bytes_of(column.type))
        elif not pa.types.is_struct(column.type):
            continue
        rows = rows.set_column(index, name, column)
        unchecked.append(name)
    return rows, size, unchecked, lambda row: f"row {first + row + 1}"


def _checked(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, list[int]]:
    """Return bytes as text, and the rows whose bytes are not UTF-8 and become null. Structs are checked inside."""
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    bad: set[int] = set()
    checked = _checked_array(array, bad)
    return pa.chunked_array([checked]), sorted(bad)


def _checked_array(array: pa.Array, bad: set[int]) -> pa.Array:
    if pa.types.is_struct(array.type):
        fields = [
            _checked_array(_as_bytes(child) if _is_string(child.type) else child, bad)
            if _is_string(child.type) or pa.types.is_struct(child.type)
            else child
            for child in array.flatten()
        ]
        names = [field.name for field in array.type]
        return pa.StructArray.from_arrays(fields, names, mask=array.is_null())
    try:
        return array.cast(pa.string())
    except pa.ArrowInvalid:
        values = array.to_pylist()
    wrong = [row for row, value in enumerate(values) if value is not None and not _is_text(value)]
    for row in wrong:
        values[row] = None
    bad.update(wrong)
    return pa.array(values, pa.binary()).cast(pa.string())


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _bytes_of(kind: pa.DataType) -> pa.DataType:
    return pa.large_binary() if pa.types.is_large_string(kind) else pa.binary()


def _as_bytes(array: pa.Array) -> pa.Array:
    return array.view(_bytes_of(array.type))


def _is_text(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
