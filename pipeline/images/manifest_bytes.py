"""Image bytes that a Parquet manifest carries itself. This module does not know which rows are pending."""

from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from pipeline import columns
from pipeline.storage.filesystems import Storage

BATCH_ROWS = 16
"""Rows of the column that are in memory at once, besides the page that holds them."""


class CarriedBytes:
    """Reads single values of a binary column; cheap if the rows of a file are requested in rising order.

    It keeps its place in one file, so that a pass over the rows reads the file once. Not safe for threads.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._at: tuple[str, str] | None = None
        self._path: columns.Path | None
        self._file: pq.ParquetFile
        self._batches: Iterator[Any]
        self._values: Any
        self._first = self._end = 0

    def read(self, uri: str, column: str, row: int) -> bytes | None:
        """Read the bytes in row `row` (from 0) of a column, `name` or `struct.field`.

        Return None for a null, and for a file without that column. Raises: IndexError if the file has no such row,
        and whatever the store or pyarrow raises.
        """
        try:
            if self._at != (uri, column):
                fs, path = self._storage.filesystem(uri)
                self._file = pq.ParquetFile(fs.open(path, "rb"), pre_buffer=False, buffer_size=1 << 20)
                self._path = columns.find(self._file.schema_arrow, column)
                self._at, self._first, self._end = (uri, column), 0, 0
            if self._path is None:
                return None
            if not self._first <= row < self._end:
                self._go_to(self._path, row)
        except BaseException:
            self._at = None
            raise
        found = self._values[row - self._first].as_py()
        return None if found is None else bytes(found)

    def _go_to(self, path: columns.Path, row: int) -> None:
        """Move to the batch with this row: forward within its row group, otherwise from the group's start."""
        group, start = self._group_of(row)
        if not start <= self._first <= self._end <= row or self._first == self._end:
            self._batches = self._file.iter_batches(BATCH_ROWS, row_groups=[group], columns=[".".join(path)])
            self._end = start
        while row >= self._end:
            batch = next(self._batches)
            values = batch.column(path[0])
            for field in path[1:]:
                values = values.field(field)
            self._values, self._first, self._end = values, self._end, self._end + batch.num_rows

    def _group_of(self, row: int) -> tuple[int, int]:
        """Return the row group of a row, and the group's first row."""
        start, metadata = 0, self._file.metadata
        for group in range(metadata.num_row_groups):
            end = start + metadata.row_group(group).num_rows
            if start <= row < end:
                return group, start
            start = end
        raise IndexError(f"there is no row {row}")
