"""Read S3 objects with obstore, which takes a ninth of s3fs's CPU time for each.

s3fs reads the rest: keys that obstore would change, and buckets that obstore has not read from yet: a bucket
may redirect to another region or be an access point. This module does not retry.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import obstore
from obstore.store import S3Store

from pipeline.config import StorageConfig
from pipeline.storage import aws, uris
from pipeline.storage.error_codes import RefusedError, throttle

TRANSFER_TIMEOUT = timedelta(minutes=10)
"""For one object: the largest that are read, 50 MB, at 80 kB/s."""
CREDENTIALS_LAST = timedelta(minutes=10)
"""How long obstore keeps credentials from botocore; it asks again five minutes before they expire."""
PROBES = 3
"""After this many reads that only s3fs could do, a bucket is left to s3fs."""
PATIENCE_S = 1.0
"""How long other requests wait for the probing one. If it succeeds, s3fs is never opened."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""A plain bucket name: no access point, and no character that has a meaning in a URL."""
_ANSWERED = (
    r"(?:Generic S3 error|Object at location {key} not found|The operation lacked [a-z ]+ for path {key}): "
    r"Error performing GET \S+ in \S+ - Server returned non-2xx status code: (\d\d\d)(?:.*?<Code>(\w+)</Code>)?"
)
_CONNECTION, _TIMED_OUT = "HttpError {", "kind: Timeout,"
Otherwise = Callable[[], bytes]


class Objects:
    """Reads S3 objects. Safe for threads."""

    def __init__(self, config: StorageConfig) -> None:
        self._config = config
        self._buckets: dict[str, _Bucket] = {}
        self._opening = threading.Lock()

    def read(self, uri: str, start: int, end: int, otherwise: Otherwise) -> bytes:
        """Return bytes `start` to `end` of an object, or to its end; use `otherwise` where obstore cannot read it.

        Raises: RefusedError if the store refuses, TimeoutError, ConnectionError, and whatever `otherwise` raises.
        """
        name, key = uris.split(uri)
        if not _BUCKET.fullmatch(name) or not is_plain(key):
            return otherwise()
        return self._bucket(name).read(key, start, end, otherwise)

    def _bucket(self, name: str) -> "_Bucket":
        with self._opening:
            if name not in self._buckets:
                self._buckets[name] = _Bucket(name, self._config)
            return self._buckets[name]


class _Bucket:
    """One bucket. s3fs reads it, except for one probing request at a time, until a probe succeeds."""

    def __init__(self, name: str, config: StorageConfig) -> None:
        self._name, self._config = name, config
        self._proved, self._failed, self._probing = False, 0, threading.Lock()
        self._store: S3Store | None = None

    def read(self, key: str, start: int, end: int, otherwise: Otherwise) -> bytes:
        if self._undecided and self._probing.acquire(timeout=PATIENCE_S):
            try:
                if self._undecided:  # another probe may have decided meanwhile
                    return self._probe(key, start, end, otherwise)
            finally:
                self._probing.release()
        if not self._proved:
            return otherwise()
        try:
            return self._get(key, start, end)
        except _UnreadableError:
            return otherwise()

    @property
    def _undecided(self) -> bool:
        return not self._proved and self._failed < PROBES

    def _probe(self, key: str, start: int, end: int, otherwise: Otherwise) -> bytes:
        try:
            with _no_panic():
                self._store = self._store or _opened(self._name, self._config)
        except Exception:
            self._failed += 1
            return otherwise()
        try:
            found = self._get(key, start, end)
        except Exception as error:  # s3fs says what it is, or reads it
            if throttle(error):  # this is no verdict on obstore, and s3fs would add a request
                raise
            # A store that says NoSuchKey has accepted the credentials.
            self._proved = isinstance(error, RefusedError) and error.code == "NoSuchKey"
            found = otherwise()
            self._failed += 1
        else:
            self._proved = True
        return found

    def _get(self, key: str, start: int, end: int) -> bytes:
        """Raises: _UnreadableError where s3fs may know more, RefusedError, TimeoutError, ConnectionError."""
        assert self._store is not None
        try:
            with _no_panic():
                return bytes(obstore.get(self._store, key, options={"range": (start, end)}).bytes())
        except Exception as error:
            raise _translated(str(error), key) from None


class _UnreadableError(Exception):
    """obstore cannot read this object; s3fs may."""


def is_plain(key: str) -> bool:
    """Whether obstore reads exactly this key. It drops slashes, and refuses dots and unprintable characters.

    A key with `?versionId=` is for s3fs, which reads that version.
    """
    names = key.split("/")
    return not {"", ".", ".."} & set(names) and key.isprintable() and "?versionId=" not in key


@contextmanager
def _no_panic() -> Iterator[None]:
    """Turn a Rust panic, a BaseException that would end the actor, into _UnreadableError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise _UnreadableError from None
        raise


def _translated(text: str, key: str) -> Exception:
    """Translate an error of obstore, which reports errors only as text. The text contains the key."""
    found = re.match(_ANSWERED.format(key=re.escape(key)), text.partition("\n\nDebug source:")[0], re.DOTALL)
    if found:
        return RefusedError(int(found[1]), found[2] or "")
    if _CONNECTION not in text:
        return _UnreadableError()
    return TimeoutError() if _TIMED_OUT in text else ConnectionError()


def _opened(bucket: str, config: StorageConfig) -> S3Store:
    """Open a client that does not retry."""
    credentials = aws.credentials(config)
    if credentials is None and not config.anonymous:
        raise _UnreadableError  # obstore would look for credentials itself

    def current() -> Any:
        assert credentials is not None
        frozen = credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + CREDENTIALS_LAST,
        }

    options: Any = aws.obstore_options(config)
    return S3Store(
        bucket,
        config=options,
        credential_provider=current if credentials else None,
        client_options={
            "connect_timeout": timedelta(seconds=aws.CONNECT_TIMEOUT_S),
            "read_timeout": timedelta(seconds=aws.READ_TIMEOUT_S),
            "timeout": TRANSFER_TIMEOUT,
        },
        retry_config={"max_retries": 0},
    )
