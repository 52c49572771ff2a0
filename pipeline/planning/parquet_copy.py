"""Manifest files that DuckDB cannot read as they are -> Parquet files in a scratch folder.

CSV and JSON lines become columns of text. Parquet files come here that use a name DuckDB keeps for itself, that
are behind a URL, or whose text is not UTF-8; the images in them stay where they are. It does not know what the
columns mean.
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
"""Values of one column of a file whose lines are named; further ones are only counted."""
EXACT = 2.0**53
"""Up to here every whole number is a float, too."""

Place = Callable[[int], str]
"""Where row i of a batch is in its file."""


@dataclass(frozen=True)
class Wanted:
    """The columns that a run asks for, in lower case: `names`, or `every` one.

    A row is invalid if the value of one of its `keys` is not UTF-8; in other columns such a value becomes null. In
    `ids` a whole number that is written as a float, 7.0, becomes its integer's text.
    """

    names: Collection[str] = ()
    every: bool = False
    keys: Collection[str] = ()
    ids: Collection[str] = ()


@dataclass
class Rewritten:
    """Parquet files that hold the rows of one manifest file, in order.

    They have the columns of `schema`, and three more: `schema.SOURCE`, `schema.ORDINAL` and `schema.UNREADABLE`.
    `nulled` has, for each column that is asked for and is no key, how many of its values are not UTF-8, and where
    the first one is.
    """

    files: list[str] = field(default_factory=list)
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    rows: int = 0
    nulled: dict[str, tuple[int, str]] = field(default_factory=dict)


class Writer:
    """Writes the rows of one manifest file, the `number`th, below a folder.

    It starts another Parquet file where a column appears.

    JSON lines may show a column late: the files before it lack it, and DuckDB reads nulls there.
    """

    def __init__(self, uri: str, number: int, folder: Path, wanted: Wanted) -> None:
        self.uri, self.wanted, self.done = uri, wanted, Rewritten()
        self._number, self._folder = number, folder
        self._file: pq.ParquetWriter | None = None
        self._named: dict[str, int] = {}

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *raised: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, rows: pa.Table, size: int, unchecked: Collection[str], place: Place) -> None:
        """Write `size` rows. `unchecked` are binary columns that are to be text, and structs with text in them.

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
        """Remember the values of a column that are not UTF-8."""
        if not bad or not (self.wanted.every or name.casefold() in self.wanted.names):
            return
        if name.casefold() not in self.wanted.keys:
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


def csv(writer: Writer, storage: Storage) -> Rewritten:
    """Rewrite a CSV file. Raises: ManifestError that names the line, StorageError."""
    with writer, text.opened(writer.uri, storage, newline="") as lines:
        for batch in csv_rows.rows(lines, writer.wanted.names):
            writer.write(*_textual(batch, writer.wanted))
    return writer.done


def json_lines(writer: Writer, storage: Storage) -> Rewritten:
    """Rewrite a JSON lines file. Raises: ManifestError that names the line, StorageError."""
    with writer, text.opened(writer.uri, storage, newline="\n") as lines:
        for batch in json_rows.rows(lines, writer.wanted.names):
            writer.write(*_textual(batch, writer.wanted))
    return writer.done


def parquet(writer: Writer, storage: Storage, left_out: Collection[str]) -> Rewritten:
    """Rewrite a Parquet file but for some columns. Raises: ManifestError, StorageError."""
    with writer, parquet_file(writer.uri, storage) as file:
        every = file.schema_arrow.names
        names = [name for name in every if name not in left_out and every.count(name) == 1]
        schema = pa.schema([file.schema_arrow.field(name) for name in names])
        empty = pa.RecordBatch.from_pylist([], schema=schema)
        for batch in chain([empty], file.iter_batches(BATCH_ROWS, columns=names)):
            rows = pa.Table.from_batches([batch])
            writer.write(*_unchecked(rows, batch.num_rows, writer.done.rows))
    return writer.done


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


def _textual(batch: Rows, wanted: Wanted) -> tuple[pa.Table, int, Collection[str], Place]:
    """Rows of text as columns of text, or of bytes where it is not UTF-8."""
    columns, unchecked = {}, []
    for name, values in batch.columns.items():
        if isinstance(values, pa.Array):
            columns[name] = values
            continue
        texts = _without_points(values) if name.casefold() in wanted.ids else values
        try:
            columns[name] = pa.array(texts, pa.string())
        except UnicodeEncodeError:
            raw = [None if value is None else value.encode("utf-8", "surrogatepass") for value in texts]
            columns[name] = pa.array(raw, pa.binary())
            unchecked.append(name)
    return pa.table(columns), len(batch.lines), unchecked, lambda row: f"line {batch.lines[row]}"


def _without_points(values: list[str | None]) -> list[str | None]:
    """7.0, as pandas writes the whole numbers of a column in which one is missing, is 7."""
    return [
        str(int(float(value))) if isinstance(value, json_rows.Decimal) and _is_whole(float(value)) else value
        for value in values
    ]


def _is_whole(number: float) -> bool:
    return number.is_integer() and abs(number) < EXACT


def _unchecked(rows: pa.Table, size: int, first: int) -> tuple[pa.Table, int, Collection[str], Place]:
    """Rows of a Parquet file with their text as bytes: it may be anything."""
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
    """Bytes as text, and the rows in which they are not UTF-8, which are null. Likewise the text in structs."""
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
