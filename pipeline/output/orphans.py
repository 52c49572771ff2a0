"""Files below a table that its newest log does not name: found, and deleted where no one can commit them any
more."""

from dataclasses import dataclass
from datetime import datetime

from pipeline.errors import TableError
from pipeline.output.layout import DELTA_LOG, epoch_of
from pipeline.output.table import Predictions, paths
from pipeline.storage.filesystems import failure, modified


@dataclass(frozen=True)
class UnreferencedFile:
    """A file that no reader sees: its path below the table, its size in bytes, and when it was written, if
    known."""

    path: str
    size: int
    modified: datetime | None

    @property
    def epoch(self) -> int | None:
        """The epoch that its name tells; None if no run wrote it."""
        return epoch_of(self.path)


def unreferenced_files(table: Predictions) -> list[UnreferencedFile]:
    """All of them. Raises: TableError if a file that the log names is missing, StorageError."""
    for _ in range(2):  # maintenance may delete a file after the log was read
        named, found = _named_and_found(table)
        if named <= found.keys():
            return [file for path, file in found.items() if path not in named]
    missing = min(named - found.keys())
    raise TableError(f"The table {table.uri} names {missing}, which is not there; nothing was deleted.")


def find(table: Predictions, epochs: range, strays_before: datetime | None = None) -> list[UnreferencedFile]:
    """Those of these epochs, and those without one that were visible once: compaction's, whose rows have moved on.

    Others without one may be about to be committed: only those written before a time are taken, if one is given.
    Raises: StorageError, TableError.
    """
    found = unreferenced_files(table)
    foreign = any(file.epoch is None for file in found)
    once = table.removed() if foreign else frozenset()

    def is_garbage(file: UnreferencedFile) -> bool:
        if file.epoch is not None:
            return file.epoch in epochs
        old = strays_before is not None and file.modified is not None and file.modified < strays_before
        return old or file.path in once

    return [file for file in found if is_garbage(file)]


def delete(table: Predictions, epochs: range) -> int:
    """Delete them; returns how many they were.

    Call it only for epochs whose writers have stopped or can no longer commit. Raises: StorageError, TableError.
    """
    orphans = [table.layout.fragment(file.path) for file in find(table, epochs)]
    table.storage.delete_all(orphans)
    return len(orphans)


def _named_and_found(table: Predictions) -> tuple[set[str], dict[str, UnreferencedFile]]:
    """The files that the newest log names, and then those that are there."""
    fs, root = table.storage.filesystem(table.uri)
    try:
        named, infos = set(paths(table.newest())), fs.find(root, detail=True)
    except Exception as error:
        raise failure(error, table.uri) from error
    found = ((name.removeprefix(root).strip("/"), info) for name, info in infos.items())
    files = (UnreferencedFile(path, int(info.get("size") or 0), modified(info)) for path, info in found)
    return named, {file.path: file for file in files if not file.path.startswith(f"{DELTA_LOG}/")}
