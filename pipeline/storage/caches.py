"""Where files are kept that can be made again: below the user's home, or among the temporary files without one.

Containers often run as a user whose home folder is read-only or not there. It does not know what the files are.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import StorageError

VARIABLE = "LAKELENS_CACHE"
_OF_OTHERS = {"HF_HOME": "huggingface", "TRITON_CACHE_DIR": "triton"}
"""Caches of libraries that do not work without a home folder, and their folders below `~/.cache`."""


def cache_folder() -> Path:
    """Where downloaded and converted models are kept: $LAKELENS_CACHE, else below the user's cache folder, else,
    where that cannot be written, among the user's temporary files."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    usual = _user_cache()
    ours = usual / "lakelens" if usual else None
    return ours if ours and is_writable(ours) else temporary("cache")


def set_environment() -> None:
    """Give libraries a folder for their caches if the user's home has none, and a user without a home one.

    Call it before they are imported. A folder that is there already is left to them, even a read-only one: an
    image may bring models in it.
    """
    if home() is None:
        os.environ["HOME"] = str(temporary("home"))
    usual = _user_cache()
    for variable, name in _OF_OTHERS.items():
        if os.environ.get(variable):
            continue
        theirs = usual / name if usual else None
        if theirs is None or not (theirs.exists() or is_writable(usual or theirs)):
            os.environ[variable] = str(temporary(name))


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def home() -> Path | None:
    """The user's home folder; None for a user who has none."""
    try:
        found = Path.home()
    except RuntimeError:  # neither $HOME nor an entry in the list of users
        return None
    return found if found.is_absolute() else None


def temporary_files() -> Path:
    """The folder of temporary files: $TMPDIR, else one of the system's. Raises: StorageError if there is none."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise StorageError("No folder for temporary files can be written; set TMPDIR to one that can.") from error


def temporary(name: str, parent: Path | None = None) -> Path:
    """This user's folder among the temporary files, the same for every process. Raises: OSError, StorageError."""
    folder = (parent or temporary_files()) / f"lakelens-{name}-{os.getuid()}"
    with suppress(FileExistsError):  # a file, or a link to nothing
        folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_dir() and found.st_uid == os.getuid() and not folder.is_symlink():
        return folder
    return Path(
        tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent)
    )  # the name was taken by another user


@contextmanager
def made_at_once(target: Path) -> Iterator[Path]:
    """A folder to fill, which then takes the name `target`, unless another process was first; others see all of it
    or nothing. Raises: StorageError if it cannot be made."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent))
    except OSError as error:
        raise StorageError(
            f"Cannot write to the cache folder {target.parent}: {error.strerror}; set {VARIABLE} to another one."
        ) from error
    try:
        yield scratch
        scratch.chmod(0o755)  # mkdtemp makes it private
        try:
            scratch.rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _user_cache() -> Path | None:
    """By the XDG specification, which has relative paths ignored."""
    given, at_home = os.environ.get("XDG_CACHE_HOME", ""), home()
    if Path(given).is_absolute():
        return Path(given)
    return at_home / ".cache" if at_home else None
