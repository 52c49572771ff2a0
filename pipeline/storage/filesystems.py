"""URI -> fsspec filesystem, and what delta-rs needs to open the same store.

A URI without a scheme is a local path. It does not know what the files mean.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline import __version__
from pipeline.config import StorageConfig
from pipeline.errors import ErrorCode, StorageError
from pipeline.storage import aws, data_uris
from pipeline.storage.error_codes import answer, classify

DELETES = 16
"""Objects that are deleted at once."""

SHOWN_CHARS = 200
"""How much of a URI a message shows."""

_LOCAL = LocalFileSystem()
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_FILE = re.compile(r"file:(?://(?:localhost)?)?(/.*)", re.IGNORECASE | re.DOTALL)
"""As Hadoop (`file:/a`), pathlib (`file:///a`) and RFC 8089 (`file://localhost/a`) write it."""


@dataclass(frozen=True)
class Storage:
    """Opens stores as one configuration says. Picklable, so that workers open the same ones.

    With `patient` false a request is made once: for those who count their tries themselves.
    """

    config: StorageConfig = StorageConfig()
    patient: bool = True

    def impatient(self) -> "Storage":
        """The same stores, which try a request only once."""
        return replace(self, patient=False)

    def filesystem(self, uri: str) -> tuple[Any, str]:
        """The fsspec filesystem of a URI and the path inside it. Raises: StorageError."""
        named = scheme(uri)
        try:
            if named in ("http", "https"):
                from pipeline.storage.http import TIMEOUT, RangedHTTP  # aiohttp: 0.3 s, for those who read by HTTP

                headers = {"User-Agent": self.config.user_agent or f"LakeLens/{__version__}"}
                return RangedHTTP(client_kwargs={"timeout": TIMEOUT}, headers=headers), uri
            if named == "file" and (path := absolute(uri)).startswith(
                "/"
            ):  # a path, as it is: fsspec takes ten times as long, and would cut it at ::
                return _LOCAL, LocalFileSystem._strip_protocol(path)
            if named not in aws.SCHEMES:
                return fsspec.core.url_to_fs(uri)  # type: ignore[no-any-return]
            fs = fsspec.filesystem(named, **aws.s3fs_options(self.config, patient=self.patient))
            if not self.patient:
                fs.retries = 1  # s3fs's own, on top of botocore's
            return fs, fs._strip_protocol(uri)  # whatever is in the key
        except Exception as error:  # fsspec imports and constructs whatever the scheme names
            raise StorageError(
                f"Cannot open {shown(uri)}: no store of the scheme {scheme(uri)!r} can be opened here; "
                "its package may be missing."
            ) from error

    def read(self, uri: str) -> bytes | None:
        """The bytes of an object; None if there is none. Raises: StorageError."""
        fs, path = self.filesystem(uri)
        try:
            return fs.cat_file(path)  # type: ignore[no-any-return]
        except FileNotFoundError:
            return None
        except Exception as error:
            raise failure(error, uri) from error

    def write(self, uri: str, data: bytes) -> None:
        """Replace an object at once: readers see the old bytes or the new ones. Raises: StorageError."""
        self._replace(uri, lambda fs, path: fs.pipe_file(path, data), lambda scratch: scratch.write_bytes(data))

    def upload(self, file: Path, uri: str) -> None:
        """Replace an object by a local file, at once. Raises: StorageError."""
        self._replace(
            uri,
            lambda fs, path: fs.put_file(str(file), path),
            lambda scratch: shutil.copyfile(file, scratch),
        )

    def create(self, uri: str, data: bytes) -> bool:
        """Write an object unless there is one; False if there was. Raises: StorageError."""
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
        """Delete an object, if there is one. Raises: StorageError."""
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
        """Replace an object by a JSON document. Raises: StorageError."""
        self.write(uri, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def _replace(self, uri: str, remote: Callable[[Any, str], object], local: Callable[[Path], object]) -> None:
        """A store replaces an object in one request; a local file is filled beside its name, and then gets it."""
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
        """What delta-rs needs to open the same store."""
        return aws.delta_options(self.config) if scheme(uri) in aws.SCHEMES else {}


def delta_uri(uri: str) -> str:
    """A URI as delta-rs takes it: it cuts at # and ? where fsspec takes them literally.

    Raises: StorageError for a percent sign in an object store's key, which delta-rs decodes here and not there.
    """
    if scheme(uri) == "file":
        return uri
    if "%" in uri:
        raise StorageError(f"Cannot keep a table at {uri}: use an output.path without a percent sign.")
    name, _, rest = uri.partition("://")
    bucket, slash, key = rest.partition("/")
    return f"{name}://{bucket}{slash}{quote(key)}"


def scheme(uri: str) -> str:
    """The scheme of a URI in lower case; "file" for a path."""
    if data_uris.is_data(uri):
        return "data"
    return uri.split("://", 1)[0].lower() if _SCHEME.match(uri) else "file"


def absolute(uri: str) -> str:
    """A URI that means the same in every process: a relative path and a `file:` URI become absolute paths."""
    local = _FILE.fullmatch(uri)
    if local:
        return _existing(local[1])
    if _SCHEME.match(uri) or data_uris.is_data(uri):
        return uri
    return str(expanded(uri).absolute())


def expanded(path: str) -> Path:
    """A local path whose `~` is a home folder. Raises: StorageError if there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise StorageError(
            f"Cannot open {path}: there is no home folder for its ~; write the whole path."
        ) from error


def _existing(path: str) -> str:
    """The path as it stands; percent-decoded if only that one exists: some programs encode, others do not."""
    if "%" not in path or os.path.lexists(path):
        return path
    decoded = os.fsdecode(unquote_to_bytes(path))
    return decoded if os.path.lexists(decoded) else path


def shown(uri: str) -> str:
    """A URI for messages and tables: without a signature or password, on one line, and not too long."""
    if data_uris.is_data(uri):
        uri = data_uris.hashed(uri)
    if scheme(uri) in ("http", "https"):
        try:
            parts = urlsplit(uri)
            uri = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        except ValueError:
            uri = uri.partition("?")[0]
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in uri[:SHOWN_CHARS])
    return text if len(uri) <= SHOWN_CHARS else f"{text}…"


def modified(info: dict[str, Any]) -> datetime | None:
    """When a listed object was written last; None if its store does not say."""
    found = next((info[key] for key in ("LastModified", "mtime", "last_modified", "updated") if key in info), None)
    if isinstance(found, int | float):
        return datetime.fromtimestamp(found, UTC)
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    return found if isinstance(found, datetime) else None


def join(base: str, *parts: str) -> str:
    """A URI below another one."""
    return "/".join([base.rstrip("/"), *parts])


_REASONS = {
    ErrorCode.NOT_FOUND: "it does not exist",
    ErrorCode.NO_SUCH_BUCKET: "there is no such bucket",
    ErrorCode.ACCESS_DENIED: "access is denied; check the credentials in the environment",
    ErrorCode.TIMEOUT: "the store did not answer in time; check storage.endpoint_url and the network",
    ErrorCode.BAD_URI: "it is not a file that can be opened",
    ErrorCode.UNAVAILABLE: "the store cannot be reached; check storage.endpoint_url and the network",
}


def failure(error: BaseException, uri: str) -> StorageError:
    """A run's error for whatever a store raised about a URI: one sentence, no secrets."""
    if isinstance(error, StorageError):
        return error
    reason = _REASONS.get(classify(error), "the store refused")
    if isinstance(error, OSError) and error.strerror and scheme(uri) == "file":
        reason = error.strerror[0].lower() + error.strerror[1:]
    return StorageError(f"Cannot open {shown(uri)}: {reason}.")


@contextmanager
def _scratch(path: str, fill: Callable[[Path], object]) -> Iterator[Path]:
    """A file beside a local path, filled and on disk before it gets its name; gone afterwards."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # The dot hides it from those who read a folder of Parquet files.
    scratch = Path(path).with_name(f".{Path(path).name}.{uuid4().hex}.tmp")
    try:
        fill(scratch)
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)


def _link(scratch: Path, path: str) -> bool:
    """Give a finished file its name; False if that is taken."""
    try:
        os.link(scratch, path)
    except FileExistsError:
        return False
    return True
