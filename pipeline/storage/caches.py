"""Folders for files that can be made again: below the user's home or, without one, among the temporary files.

Containers often run as a user whose home folder is read-only or missing. It does not know what the files are.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import StorageError

VARIABLE = "LAKELENS_CACHE"
"""The environment variable that names the cache folder."""
_LIBRARY_CACHES = {"HF_HOME": "huggingface", "TRITON_CACHE_DIR": "triton"}
"""Caches of libraries that do not work without a home folder, and their folders below `~/.cache`."""


def cache_folder() -> Path:
    """Return the folder for downloaded and converted models.

    It is $LAKELENS_CACHE, otherwise a folder below the user's cache folder. If that is not writable, it is
    a folder among the user's temporary files.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    usual = _user_cache()
    ours = usual / "lakelens" if usual else None
    return ours if ours and is_writable(ours) else temporary("cache")


def set_environment() -> None:
    """Set variables for the caches of libraries if the user's home cannot hold them, and $HOME if it is missing.

    Call it before these libraries are imported. It does not replace a cache folder that exists, even a read-only
    one: a container image may ship models in it.
    """
    if home() is None:
        os.environ["HOME"] = str(temporary("home"))
    usual = _user_cache()
    for variable, name in _LIBRARY_CACHES.items():
        if os.environ.get(variable):
            continue
        theirs = usual / name if usual else None
        if theirs is None or not (theirs.exists() or is_writable(usual or theirs)):
            os.environ[variable] = str(temporary(name))


def is_writable(folder: Path) -> bool:
    """Create a folder if it does not exist, and tell whether files can be created in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def home() -> Path | None:
    """Return the user's home folder; None for a user without one."""
    try:
        found = Path.home()
    except RuntimeError:  # neither $HOME nor an entry in the list of users
        return None
    return found if found.is_absolute() else None


def temporary_files() -> Path:
    """Return the folder of temporary files: $TMPDIR, otherwise one of the system's.

    Raises: StorageError if there is none.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise StorageError(
            "No folder for temporary files is writable. Set TMPDIR to a writable folder."
        ) from error


def temporary(name: str, parent: Path | None = None) -> Path:
    """Return this user's folder among the temporary files, the same for every process.

    Raises: OSError, StorageError.
    """
    folder = (parent or temporary_files()) / f"lakelens-{name}-{os.getuid()}"
    with suppress(FileExistsError):  # a file, or a link to nothing
        folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_dir() and found.st_uid == os.getuid() and not folder.is_symlink():
        return folder
    # Another user has taken the name.
    return Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder, and rename it to `target` at the end, unless another process was faster.

    Other processes see the complete folder or none. Raises: StorageError if it cannot be created.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent))
    except OSError as error:
        raise StorageError(
            f"Cannot write to the cache folder {target.parent}: {error.strerror}. Set {VARIABLE} to another "
            "folder."
        ) from error
    try:
        yield scratch
        scratch.chmod(0o755)  # mkdtemp gives access to this user only
        try:
            scratch.rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _user_cache() -> Path | None:
    """Return the user's cache folder. The XDG specification says to ignore a relative path."""
    given, at_home = os.environ.get("XDG_CACHE_HOME", ""), home()
    if Path(given).is_absolute():
        return Path(given)
    return at_home / ".cache" if at_home else None
