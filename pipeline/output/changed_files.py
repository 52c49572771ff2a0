"""What the Delta log says about two versions of the predictions table: which files can hold changed rows.

This module reads the log and lists folders, but opens no Parquet file.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from pipeline.errors import VersionGoneError
from pipeline.output import delta_log
from pipeline.output.delta_log import LogEntry
from pipeline.output.layout import Layout, partition_of
from pipeline.output.reader import PredictionsReader
from pipeline.output.visible_files import VisibleFile
from pipeline.storage.filesystems import failure

_LOG_READS = 8
"""Entries of the log that are read at once: on an object store, each takes a request."""


@dataclass(frozen=True)
class ChangedFiles:
    """The files whose rows tell what has changed.

    `new`: visible files of which every row is new or changed.
    `rewritten`: visible files that also hold older rows; rows of these `runs` may be new.
    `earlier`: files that were visible at `since`, are not any more, and still exist: their rows are not new.
    `left`: files that a run has removed or replaced since; their rows are gone unless a newer file has them.
    """

    new: tuple[VisibleFile, ...]
    rewritten: tuple[VisibleFile, ...] = ()
    runs: tuple[str, ...] = ()
    earlier: tuple[VisibleFile, ...] = ()
    left: tuple[VisibleFile, ...] = ()


def find(reader: PredictionsReader, since: int | None, *, datasets: Sequence[str], outcome: str) -> ChangedFiles:
    """Find the files that have changed from the version `since` to the reader's; None means from an empty table.

    Raises: VersionGoneError if an entry of the log or a file that a run has replaced is gone, StorageError.
    """

    def is_chosen(path: str) -> bool:
        dataset, held = partition_of(path)
        return held == outcome and (not datasets or dataset in datasets)

    visible = [file for file in reader.files if is_chosen(file.path)]
    if since is None:
        return ChangedFiles(new=tuple(visible))
    return _compared(reader, _entries(reader, since), visible, is_chosen, since)


def _entries(reader: PredictionsReader, since: int) -> list[LogEntry]:
    """Read the entries of the log after a version, up to the reader's."""
    layout = Layout(reader.output)
    if since > reader.version:
        raise VersionGoneError(
            f"{layout.predictions} is at version {reader.version}, which is older than {since}. If the output was "
            "made again, start from nothing."
        )
    with ThreadPoolExecutor(_LOG_READS) as pool:
        read = partial(delta_log.read, layout, storage=reader.storage)
        found = list(pool.map(read, range(since + 1, reader.version + 1)))
    entries = [entry for entry in found if entry is not None]
    if len(entries) < len(found):
        raise _gone(reader, since, "entries of its log have expired")
    return entries


def _compared(
    reader: PredictionsReader,
    entries: list[LogEntry],
    visible: list[VisibleFile],
    is_chosen: Callable[[str], bool],
    since: int,
) -> ChangedFiles:
    changing = [entry for entry in entries if entry.changes_data]
    by_others = any(entry.added and entry.run_id is None for entry in changing)
    added = {path for entry in entries for path in entry.added}
    # What another program has written may have the run_id of an older row, so all of it counts as new.
    whole = added if by_others else {path for entry in changing if not entry.removed for path in entry.added}
    removed = {path for entry in entries for path in entry.removed if is_chosen(path)}
    left = {path for entry in changing for path in entry.removed if is_chosen(path)}
    rewritten = tuple(file for file in visible if file.path in added - whole)
    there = _existing(reader, removed) if rewritten or left else set()
    if not left <= there:
        raise _gone(reader, since, f"{min(left - there)} was deleted")
    return ChangedFiles(
        new=tuple(file for file in visible if file.path in whole),
        rewritten=rewritten,
        runs=tuple(sorted({entry.run_id for entry in changing if entry.run_id is not None})),
        earlier=_files((removed - added) & there) if rewritten else (),
        left=_files(left),
    )


def _existing(reader: PredictionsReader, paths: set[str]) -> set[str]:
    """Return those of these paths at which there is a file. List folders: that takes fewer requests."""
    found = set[str]()
    for folder in {path.rpartition("/")[0] for path in paths}:
        uri = Layout(reader.output).fragment(folder)
        fs, root = reader.storage.filesystem(uri)
        try:
            names = fs.find(root) if fs.exists(root) else []
        except Exception as error:
            raise failure(error, uri) from error
        found |= {f"{folder}/{name.rsplit('/', 1)[-1]}" for name in names}
    return paths & found


def _files(paths: set[str]) -> tuple[VisibleFile, ...]:
    return tuple(VisibleFile(path, *partition_of(path), rows=None, size=0) for path in sorted(paths))


def _gone(reader: PredictionsReader, since: int, reason: str) -> VersionGoneError:
    return VersionGoneError(
        f"The changes of {Layout(reader.output).predictions} since version {since} cannot be found, because "
        f"{reason}. Start from nothing."
    )
