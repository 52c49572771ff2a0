"""Folders for temporary files; what a killed process leaves behind, the next one that wants a folder deletes.

A plan of a large lake can spill many gigabytes there. It does not know what the files are.
"""

import fcntl
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from pipeline.errors import StorageError
from pipeline.storage import caches

PREFIX = f"lakelens-scratch-{quote(platform.node(), safe='')}-"
"""With the machine's name: some file systems that machines share have locks on each of them alone."""


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder among the system's temporary files, deleted at the end. Raises: StorageError."""
    parent = caches.temporary_files()
    _sweep(parent)
    try:
        path, lock = _locked()
    except OSError as error:
        raise StorageError(
            f"Cannot make a temporary folder in {parent}: {error.strerror}; set TMPDIR to another one."
        ) from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _locked() -> tuple[Path, int]:
    """A new folder, and the descriptor by which this process has it locked for as long as it lives."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        with suppress(OSError):  # a file system without locks: nobody can take the folder for abandoned there
            fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():  # nobody swept it away before it was locked
            return path, lock
        os.close(lock)


def _sweep(parent: Path) -> None:
    """Delete the folders of this user that no process has locked: theirs was killed."""
    for path in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if os.fstat(lock).st_uid == os.getuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
