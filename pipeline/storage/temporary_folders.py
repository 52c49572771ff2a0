"""Temporary folders. If a process is killed, the next process that needs a folder deletes those of the killed one.

A plan of a large lake can spill many gigabytes there. It does not know what the files are.
"""

import fcntl
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from pipeline.errors import StorageError
from pipeline.storage import caches

PREFIX = f"lakelens-scratch-{quote(platform.node(), safe='')}-"
"""The start of a folder's name. It has the machine's name: on some shared file systems, a lock is seen only on the
machine that holds it."""


@contextmanager
def folder() -> Iterator[Path]:
    """Yield an empty folder among the system's temporary files, and delete it at the end. Raises: StorageError."""
    parent = caches.temporary_files()
    _delete_abandoned(parent)
    try:
        path, lock = _locked()
    except OSError as error:
        raise StorageError(
            f"Cannot make a temporary folder in {parent}: {error.strerror}. Set TMPDIR to another folder."
        ) from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def write_error(folder: Path, error: OSError) -> StorageError:
    """Return the error about a folder that cannot be written, with the reason but without paths of files in it."""
    # `shutil.copytree` collects its errors as (source, target, text).
    text = error.args[0][0][2] if isinstance(error, shutil.Error) else str(error)
    reason = re.sub(r"^\[Errno \d+\] |: '.*", "", text)
    return StorageError(
        f"Cannot write to the temporary folder {folder}: {reason}. Free space there, or set TMPDIR."
    )


def _locked() -> tuple[Path, int]:
    """Return a new folder, and the descriptor with which this process locks it until it ends."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        with suppress(OSError):  # no locks on this file system: then no process deletes the folder
            fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():  # no other process deleted it before it was locked
            return path, lock
        os.close(lock)


def _delete_abandoned(parent: Path) -> None:
    """Delete this user's folders that no process has locked: their processes were killed."""
    for path in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if os.fstat(lock).st_uid == os.getuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
