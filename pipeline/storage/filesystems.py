"""Open the filesystem of a URI, and read and write single objects. It does not know what the files mean."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline import __version__
from pipeline.config import StorageConfig
from pipeline.errors import ErrorCode, StorageError, first_line
from pipeline.storage import aws, temporary_folders
from pipeline.storage.error_codes import answer, classify
from pipeline.storage.uris import absolute, is_http, is_local, is_s3, redacted, scheme, without_queries

DELETES = 16
"""How many objects are deleted concurrently."""

_LOCAL = LocalFileSystem()


@dataclass(frozen=True)
class Storage:
    """Opens the stores of one configuration. Picklable, so that workers open the same ones.

    With `patient` false, clients do not retry: the caller counts its attempts itself.
    """

    config: StorageConfig = StorageConfig()
    patient: bool = True

    def impatient(self) -> "Storage":
        """Return the same stores without retries."""
        return replace(self, patient=False)

    def filesystem(self, uri: str) -> tuple[Any, str]:
        """Return the fsspec filesystem of a URI and the path inside it. Raises: StorageError."""
        try:
            if is_http(uri):
                from pipeline.storage.http import TIMEOUT, RangedHTTP  # aiohttp: 0.3 s, for those who read by HTTP

                headers = {"User-Agent": self.config.user_agent or f"LakeLens/{__version__}"}
                return RangedHTTP(client_kwargs={"timeout": TIMEOUT}, headers=headers), uri
            if is_local(uri):  # fsspec takes ten times as long, and would cut the path at ::
                path = absolute(uri)
                return _LOCAL, LocalFileSystem._strip_protocol(path)
            if not is_s3(uri):
                return fsspec.core.url_to_fs(uri)  # type: ignore[no-any-return]
            fs = fsspec.filesystem(scheme(uri), **aws.s3fs_options(self.config, patient=self.patient))
            if not self.patient:
                fs.retries = 1  # s3fs's own, on top of botocore's
            return fs, fs._strip_protocol(uri)  # whatever is in the key
        except StorageError:
            raise
        except Exception as error:  # fsspec imports and constructs whatever the scheme names
            raise StorageError(
                f"Cannot open {redacted(uri)}: no client for {scheme(uri)}:// can be made: "
                f"{without_queries(first_line(error))}."
            ) from error

    def read(self, uri: str) -> bytes | None:
        """Return the bytes of an object; None if it does not exist. Raises: StorageError."""
        fs, path = self.filesystem(uri)
        try:
            return fs.cat_file(path)  # type: ignore[no-any-return]
        except FileNotFoundError:
            return None
        except Exception as error:
            raise failure(error, uri) from error

    def write(self, uri: str, data: bytes) -> None:
        """Replace an object atomically: readers see the old or the new bytes. Raises: StorageError."""
        self._replace(uri, lambda fs, path: fs.pipe_file(path, data), lambda scratch: scratch.write_bytes(data))

    def upload(self, file: Path, uri: str) -> None:
        """Replace an object with a local file, atomically. Raises: StorageError."""
        self._replace(
            uri,
            lambda fs, path: fs.put_file(str(file), path),
            lambda scratch: shutil.copyfile(file, scratch),
        )

    @contextmanager
    def replacing(self, uri: str) -> Iterator[Path]:
        """Yield the path of a local file to write. It then replaces an object, atomically.

        If an error is raised meanwhile, the object stays as it is. Raises: StorageError.
        """
        fs, path = self.filesystem(uri)
        if not isinstance(fs, LocalFileSystem):
            with temporary_folders.folder() as folder:
                try:
                    yield folder / "object"
                except OSError as error:
                    raise temporary_folders.write_error(folder, error) from error
                self.upload(folder / "object", uri)
            return
        try:
            with _beside(path) as scratch:
                yield scratch
                _sync(scratch)
                os.replace(scratch, path)
        except OSError as error:
            raise failure(error, uri) from error

    def create(self, uri: str, data: bytes) -> bool:
        """Write an object unless it exists; return False if it does. Raises: StorageError."""
        fs, path = self.filesystem(uri)
        try:
            if not isinstance(fs, LocalFileSystem):
                fs.pipe_file(path, data, mode="create")
                return True
            with _scratch(path, lambda scratch: scratch.write_bytes(data)) as scratch:
                return _link(scratch, path)
        except Exception as error:
            if (answer(error) or (0,))[0] in (409, 412):  # conflict, precondition failed
                return False
            raise failure(error, uri) from error

    def delete(self, uri: str) -> None:
        """Delete an object if it exists. Raises: StorageError."""
        fs, path = self.filesystem(uri)
        try:
            fs.rm_file(path)
        except FileNotFoundError:
            return
        except Exception as error:
            raise failure(error, uri) from error

    def delete_all(self, uris: Iterable[str]) -> None:
        """Delete these objects, several at once. Raises: StorageError."""
        with ThreadPoolExecutor(max_workers=DELETES) as pool:
            list(pool.map(self.delete, uris))

    def write_json(self, uri: str, value: object) -> None:
        """Replace an object with a JSON document. Raises: StorageError."""
        self.write(uri, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def _replace(self, uri: str, remote: Callable[[Any, str], object], local: Callable[[Path], object]) -> None:
        """Replace an object: in a store with one request, on local disk by renaming a finished file."""
        fs, path = self.filesystem(uri)
        try:
            if not isinstance(fs, LocalFileSystem):
                remote(fs, path)
                return
            with _scratch(path, local) as scratch:
                os.replace(scratch, path)
        except Exception as error:
            raise failure(error, uri) from error

    def delta_options(self, uri: str) -> dict[str, str]:
        """Return the options with which delta-rs opens the same store. Raises: StorageError."""
        return aws.delta_options(self.config) if is_s3(uri) else {}


def modified(info: dict[str, Any]) -> datetime | None:
    """Return when a listed object was last written; None if its store does not say."""
    found = next((info[key] for key in ("LastModified", "mtime", "last_modified", "updated") if key in info), None)
    if isinstance(found, int | float):
        return datetime.fromtimestamp(found, UTC)
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    return found if isinstance(found, datetime) else None


_REASONS = {
    ErrorCode.NOT_FOUND: "it does not exist",
    ErrorCode.NO_SUCH_BUCKET: "there is no such bucket",
    ErrorCode.ACCESS_DENIED: "access is denied; check the credentials in the environment",
    ErrorCode.TIMEOUT: "the store did not answer in time; check storage.endpoint_url and the network",
    ErrorCode.BAD_URI: "it is not a file that can be opened",
    ErrorCode.UNAVAILABLE: "the store cannot be reached; check storage.endpoint_url and the network",
}


def failure(error: BaseException, uri: str) -> StorageError:
    """Translate whatever a store raised about a URI into one sentence without secrets."""
    if isinstance(error, StorageError):
        return error
    reason = _REASONS.get(classify(error), "the store refused")
    if isinstance(error, OSError) and error.strerror and is_local(uri):
        reason = error.strerror[0].lower() + error.strerror[1:]
    return StorageError(f"Cannot open {redacted(uri)}: {reason}.")


@contextmanager
def _scratch(path: str, fill: Callable[[Path], object]) -> Iterator[Path]:
    """Yield a file beside a local path, filled and synced to disk. It is deleted afterwards if it still exists."""
    with _beside(path) as scratch:
        fill(scratch)
        _sync(scratch)
        yield scratch


@contextmanager
def _beside(path: str) -> Iterator[Path]:
    """Yield the path of a new file beside a local path. It is deleted afterwards if it still exists."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # The dot hides it from those who read a folder of Parquet files.
    scratch = Path(path).with_name(f".{Path(path).name}.{uuid4().hex}.tmp")
    try:
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)


def _sync(file: Path) -> None:
    """Wait until a file is on disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _link(scratch: Path, path: str) -> bool:
    """Give a finished file its name; return False if the name is taken."""
    try:
        os.link(scratch, path)
    except FileExistsError:
        return False
    return True
