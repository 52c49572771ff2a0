"""Compact an output: rewrite small files as larger ones, whose rows are ordered by `image_id`.

A compaction is safe beside a running job, which notices and carries on. It never changes a row.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties
from deltalake.exceptions import DeltaError

from pipeline import schema
from pipeline.errors import MovedError, TableError, first_line
from pipeline.output import space
from pipeline.output.actions import Change
from pipeline.output.fragment import Fragment
from pipeline.output.fragment_files import by_id, write_file
from pipeline.output.layout import fragment_path
from pipeline.output.maintenance import COMPACTED, user_and_host
from pipeline.output.table import Predictions
from pipeline.output.visible_files import VisibleFile, paths, visible_files
from pipeline.storage.filesystems import Storage

TARGET_MB = 128
"""Size of a compacted file: some 60,000 rows of 768 dimensions. Replacing rows of a file reads the whole file."""
ATTEMPTS = 5
"""Attempts to compact a dataset while a run replaces rows in it."""
WRITES = min(4, os.cpu_count() or 1)
"""Files that are written at once. Each takes some five times `target_mb` of memory."""


@dataclass(frozen=True)
class CompactionResult:
    """The number of files of one dataset, before and after."""

    dataset: str
    files_before: int
    files_after: int


def compact(
    output: str,
    storage: Storage,
    *,
    target_mb: int = TARGET_MB,
    datasets: Sequence[str] = (),
    keep_replaced: bool = False,
) -> Iterator[CompactionResult]:
    """Rewrite the small files of each dataset as fewer files of about `target_mb`, and yield one result a dataset.

    The replaced files are deleted, so that a plain glob stays exact. With `keep_replaced` they stay for readers of
    older versions, until `vacuum`. Raises: TableError, StorageError.
    """
    space.read(output, storage)  # refuses a newer format, whose rules may differ
    table = Predictions.existing(output, storage)
    known = sorted({part[schema.DATASET] for part in table.newest().partitions()})
    unknown = sorted(set(datasets) - set(known))
    if unknown:
        raise TableError(f"{output} has no dataset {unknown[0]!r}; it has {', '.join(known)}.")
    for dataset in datasets or known:
        before, after = _compacted(table, dataset, target_mb * 10**6)
        gone = [table.layout.fragment(path) for path in before - after]
        if not keep_replaced:
            storage.delete_all(gone)
        yield CompactionResult(dataset, len(before), len(after))


def _compacted(table: Predictions, dataset: str, target: int) -> tuple[set[str], set[str]]:
    """Compact a dataset, and return the paths of its files before and after."""
    before = set(paths(table.newest(), dataset))
    for attempt in range(1, ATTEMPTS + 1):
        try:
            found = groups([file for file in visible_files(table.newest()) if file.dataset == dataset], target)
            if found:
                _Rewriting(table, found).commit(dataset)
            return before, set(paths(table.newest(), dataset))
        except (MovedError, DeltaError, OSError) as error:
            if isinstance(error, MovedError) and attempt < ATTEMPTS:
                continue  # a run has replaced rows in it meanwhile
            reason = first_line(error).rstrip(".")
            raise TableError(f"Cannot compact the dataset {dataset!r} of {table.uri}: {reason}.") from error
    raise AssertionError


def groups(files: Sequence[VisibleFile], target: int) -> list[list[VisibleFile]]:
    """Group the files of a dataset, each group to be one file of at most the target size.

    Neighbours in the order of their least ids form a group, so that the new files share few ids' ranges.
    """
    found: list[list[VisibleFile]] = []
    ordered = sorted(files, key=lambda file: (file.outcome, file.least_id or "", file.path))
    for _, of_outcome in groupby(ordered, key=lambda file: file.outcome):
        found.append([])
        for file in of_outcome:
            if found[-1] and sum(one.size for one in found[-1]) + file.size > target:
                found.append([])
            found[-1].append(file)
    return [group for group in found if len(group) > 1]


class _Rewriting:
    """The new files of some groups of files, and the one commit that exchanges them."""

    def __init__(self, table: Predictions, groups: Sequence[Sequence[VisibleFile]]) -> None:
        """Write the new files. Raises: MovedError if a file is gone, StorageError."""
        self._table = table
        self._replaced = {file.path for group in groups for file in group}
        self._columns = schema.fragment(Predictions.existing(table.output, table.storage).columns())
        self._written: list[Fragment] = []
        with ThreadPoolExecutor(WRITES) as pool:
            try:
                list(pool.map(self._rewrite, groups))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                self._discard()
                raise

    def commit(self, dataset: str) -> None:
        """Commit the exchange. Raises: MovedError if one of the replaced files is no longer visible, DeltaError.

        Files of a commit that failed in the store stay: it may still land. The next vacuum deletes them.
        """
        facts = {COMPACTED: dataset, "by": f"lakelens compact, {user_and_host()}"}
        properties = CommitProperties(custom_metadata=facts, max_commit_retries=0)
        change = Change(self._written, self._replaced, moves_rows=True)
        for attempt in range(1, ATTEMPTS + 1):
            handle = self._table.newest()
            visible = set(paths(handle))
            if visible.issuperset(one.path for one in self._written):
                return  # the commit landed, and only the answer was lost
            if not change.fits(visible):
                self._discard()
                raise MovedError(f"A run has replaced files of {self._table.uri} meanwhile.")
            try:
                return change.commit(handle, properties)
            except (DeltaError, OSError):  # a run was faster, or the store fails
                if attempt == ATTEMPTS:
                    raise

    def _rewrite(self, group: Sequence[VisibleFile]) -> None:
        """Write the rows of some files of one dataset and outcome as one file."""
        rows = pa.concat_tables([self._rows(file.path) for file in group], promote_options="default")
        rows = rows.combine_chunks()
        path = fragment_path(group[0].dataset, group[0].outcome, None)
        self._written.append(
            write_file(rows, by_id(rows), path, output=self._table.output, storage=self._table.storage)
        )

    def _rows(self, path: str) -> pa.Table:
        """Read the columns of the table that a file has, in the table's types."""
        uri = self._table.layout.fragment(path)
        data = self._table.storage.read(uri)
        if data is None:
            raise MovedError(f"{uri} is gone.")
        rows = pq.read_table(pa.BufferReader(data), partitioning=None)
        there = [field.remove_metadata() for field in self._columns if field.name in rows.column_names]
        return rows.select([field.name for field in there]).cast(pa.schema(there))

    def _discard(self) -> None:
        self._table.storage.delete_all(self._table.layout.fragment(one.path) for one in self._written)
