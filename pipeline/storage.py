"""URI -> fsspec filesystem, and the same credentials for delta-rs and DuckDB.

A URI without a scheme is a local path. Credentials come from the usual AWS variables, profiles and
roles (botocore finds them); delta-rs is given those of the moment in which a table is opened. Nothing here
writes them anywhere, or knows what the files mean.
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
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import botocore.credentials
import botocore.session
import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.config import StorageConfig
from pipeline.errors import ErrorCode, StorageError
from pipeline.refusals import answer, classify

RETRIES = {"total_max_attempts": 4, "mode": "standard"}
"""botocore's retry policy for each request: exponential backoff with jitter, a few seconds in all."""
ONCE = {"total_max_attempts": 1, "mode": "standard"}
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0

DELETES = 16
"""Objects that are deleted at once."""

SHOWN_CHARS = 200
"""How much of a URI a message shows."""

_LOCAL = LocalFileSystem()
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
S3 = ("s3", "s3a")


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
                from pipeline.http import TIMEOUT, RangedHTTP  # aiohttp: 0.3 s, for those who read by HTTP

                return RangedHTTP(client_kwargs={"timeout": TIMEOUT}), uri
            if not _SCHEME.match(uri):  # a path, as it is: fsspec takes ten times as long, and would cut it at ::
                return _LOCAL, LocalFileSystem._strip_protocol(absolute(uri))
            fs, path = fsspec.core.url_to_fs(absolute(uri), **(self._s3_options() if named in S3 else {}))
            if named in S3 and not self.patient:
                fs.retries = 1  # s3fs's own, on top of botocore's
            return fs, path
        except Exception as error:  # fsspec imports and constructs whatever the scheme names
            raise StorageError(
                f"Cannot open {uri}: no store of the scheme {scheme(uri)!r} can be opened here; "
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
        """What delta-rs needs to open the same store: it cannot read profiles or roles itself."""
        if scheme(uri) not in S3:
            return {}
        credentials = self.credentials()
        frozen = credentials.get_frozen_credentials() if credentials else None
        secrets = {
            "AWS_ACCESS_KEY_ID": frozen.access_key if frozen else None,
            "AWS_SECRET_ACCESS_KEY": frozen.secret_key if frozen else None,
            "AWS_SESSION_TOKEN": frozen.token if frozen else None,
        }
        return self.s3_place() | {key: value for key, value in secrets.items() if value}

    def s3_place(self) -> dict[str, str]:
        """Where the S3 store is, as the Rust crate object_store takes it: for delta-rs and obstore."""
        endpoint = self._endpoint()
        options = {
            "AWS_REGION": self._region(),
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true" if endpoint and endpoint.startswith("http://") else None,
            "AWS_SKIP_SIGNATURE": "true" if self.config.anonymous else None,
        }
        return {key: value for key, value in options.items() if value}

    def credentials(self) -> botocore.credentials.Credentials | None:
        """Those that botocore finds, which renew themselves; None if there are none, or none are wanted."""
        return None if self.config.anonymous else botocore.session.get_session().get_credentials()

    def _endpoint(self) -> str | None:
        """The configured S3 endpoint: the config's, else that of the environment or of the AWS profile."""
        names = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_CONFIG_FILE")
        return self.config.endpoint_url or _found_endpoint(tuple(os.environ.get(name) for name in names))

    def _region(self) -> str:
        return self.config.region or botocore.session.get_session().get_config_variable("region") or "us-east-1"

    def _s3_options(self) -> dict[str, Any]:
        return {
            "anon": self.config.anonymous,
            "endpoint_url": self._endpoint(),
            "client_kwargs": {"region_name": self.config.region} if self.config.region else {},
            "config_kwargs": {
                "retries": RETRIES if self.patient else ONCE,
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": READ_TIMEOUT_S,
                "max_pool_connections": 64,
            },
            "use_listings_cache": False,
        }


@cache
def _found_endpoint(environment: tuple[str | None, ...]) -> str | None:
    """What botocore makes of the environment, None for AWS itself; kept, since it takes a tenth of a second."""
    found: str = botocore.session.get_session().create_client("s3", region_name="us-east-1").meta.endpoint_url
    return None if found.endswith((".amazonaws.com", ".amazonaws.com.cn")) else found


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
    return uri.split("://", 1)[0].lower() if _SCHEME.match(uri) else "file"


def absolute(uri: str) -> str:
    """A URI that means the same in every process: a relative path is resolved here and now."""
    if _SCHEME.match(uri):
        return uri
    return str(Path(uri).expanduser().absolute())


def shown(uri: str) -> str:
    """A URI for messages and tables: without a signature or password, on one line, and not too long."""
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
    return StorageError(f"Cannot open {uri}: {reason}.")


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
