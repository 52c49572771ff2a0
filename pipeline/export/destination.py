"""The folder that an export fills: new or empty, and not inside the output."""

import os

from pipeline.errors import ConfigError
from pipeline.export.summary import EXPORT
from pipeline.storage.filesystems import Storage, failure
from pipeline.storage.uris import absolute, is_local, is_s3, join, redacted


def claimed(out: str, output: str, storage: Storage) -> str:
    """Return the absolute URI of the folder. Raises: ConfigError if it cannot take an export, StorageError."""
    folder = absolute(out)
    if _comparable(folder).startswith(_comparable(output)):
        raise ConfigError(f"--out {redacted(out)} is inside the output; choose a folder outside of {output}.")
    held = _entries(folder, storage)
    if held:
        is_whole = any(name.rpartition("/")[2] == EXPORT for name in held)
        hint = "" if is_whole else f" If an export wrote it, that did not finish: there is no {EXPORT}."
        raise ConfigError(f"--out {redacted(out)} is not empty; choose another folder, or delete it.{hint}")
    return folder


def _comparable(uri: str) -> str:
    """Return a URI in the form in which one begins with another if it is below it."""
    if is_local(uri):
        uri = os.path.realpath(absolute(uri))
    elif is_s3(uri):
        uri = f"s3://{uri.partition('://')[2]}"
    return join(uri, "")


def _entries(folder: str, storage: Storage) -> list[str]:
    """Return the paths below a folder, or the folder itself if it is a file."""
    fs, path = storage.filesystem(folder)
    try:
        fs.invalidate_cache()
        found = [str(name) for name in fs.ls(path, detail=False)]
        return [name for name in found if name.rstrip("/") != path.rstrip("/") or fs.isfile(path)]
    except FileNotFoundError:
        return []
    except Exception as error:
        raise failure(error, folder) from error
