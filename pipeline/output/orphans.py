"""Orphaned files: files below a table that its newest log does not name, and that nobody can commit any more."""

from dataclasses import dataclass
from datetime import datetime

from pipeline.errors import TableError
from pipeline.output.layout import DELTA_LOG, epoch_of
from pipeline.output.table import Predictions
from pipeline.output.visible_files import paths
from pipeline.storage.filesystems import failure, modified


@dataclass(frozen=True)
class UnreferencedFile:
    """A file that no reader sees: its path below the table, its size in bytes, when it was written, if known."""

    path: str
    size: int
    modified: datetime | None

    @property
    def epoch(self) -> int | None:
        """The epoch in its name; None if no run wrote it."""
        return epoch_of(self.path)


def unreferenced_files(table: Predictions) -> list[UnreferencedFile]:
    """Return all of them. Raises: TableError if a file that the log names is missing, StorageError."""
    for _ in range(2):  # maintenance may delete a file between the reading of the log and the listing
        named, found = _named_and_found(table)
        if named <= found.keys():
            return [file for path, file in found.items() if path not in named]
    missing = min(named - found.keys())
    raise TableError(
        f"The log of {table.uri} names {missing}, which does not exist. Nothing was deleted; restore the file."
    )


def find(table: Predictions, epochs: range, strays_before: datetime | None = None) -> list[UnreferencedFile]:
    """Return the orphans of these epochs, and files without an epoch whose rows a compaction has moved.

    A compaction may still commit other files without an epoch. They count only if they were written before
    `strays_before`. Raises: StorageError, TableError.
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
    """Delete the orphans of these epochs, and return their number.

    The writers of these epochs must have stopped or be unable to commit. Raises: StorageError, TableError.
    """
    orphans = [table.layout.fragment(file.path) for file in find(table, epochs)]
    table.storage.delete_all(orphans)
    return len(orphans)


def _named_and_found(table: Predictions) -> tuple[set[str], dict[str, UnreferencedFile]]:
    """Return the files that the newest log names, and the files that exist."""
    fs, root = table.storage.filesystem(table.uri)
    try:
        named, infos = set(paths(table.newest())), fs.find(root, detail=True)
    except Exception as error:
        raise failure(error, table.uri) from error
    found = ((name.removeprefix(root).strip("/"), info) for name, info in infos.items())
    files = (UnreferencedFile(path, int(info.get("size") or 0), modified(info)) for path, info in found)
    return named, {file.path: file for file in files if not file.path.startswith(f"{DELTA_LOG}/")}
