"""S3 objects -> bytes by obstore, in a ninth of the CPU time that s3fs takes for each.

What s3fs can do besides is left to it: keys that obstore would read as others, and buckets that obstore has not
read from yet, because of a region that a bucket redirects to, an access point, a certificate. It knows no retries.
"""

import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import obstore
from obstore.store import S3Store

from pipeline.refusals import RefusedError
from pipeline.storage import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, Storage

TRANSFER_TIMEOUT = timedelta(minutes=10)
"""For one object: the largest that are read, 50 MB, at 80 kB/s."""
CREDENTIALS_LAST = timedelta(minutes=5)
"""After which botocore is asked again; it renews its own 10 minutes or more before they expire."""
PROBES = 3
"""A bucket from which s3fs can read and obstore could not so many times is left to s3fs."""

_ANSWERED = re.compile(r"status code: (\d{3})(?:.*?<Code>(\w+)</Code>)?", re.DOTALL)
_TIMED_OUT = re.compile(r"kind: Timeout\b")
Otherwise = Callable[[], bytes]


class Objects:
    """Reads S3 objects. Safe for threads."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._buckets: dict[str, _Bucket] = {}
        self._opening = threading.Lock()

    def read(self, uri: str, start: int, end: int, otherwise: Otherwise) -> bytes:
        """Bytes `start` to `end` of an object, or to its end; by `otherwise` where obstore is not the one to ask.

        Raises: RefusedError for what the store answers, TimeoutError, ConnectionError; what `otherwise` raises.
        """
        name, _, key = uri.partition("://")[2].partition("/")
        if not is_plain(key):
            return otherwise()
        return self._bucket(name).read(key, start, end, otherwise)

    def _bucket(self, name: str) -> "_Bucket":
        with self._opening:
            if name not in self._buckets:
                self._buckets[name] = _Bucket(name, self._storage)
            return self._buckets[name]


class _Bucket:
    """One bucket. It is left to s3fs but for one probing request at a time, until one of them has gone well."""

    def __init__(self, name: str, storage: Storage) -> None:
        self._name, self._storage = name, storage
        self._proved, self._failed, self._probing = False, 0, threading.Lock()
        self._store: S3Store | None = None

    def read(self, key: str, start: int, end: int, otherwise: Otherwise) -> bytes:
        if self._proved:
            try:
                return self._get(key, start, end)
            except ValueError:  # a key that obstore refuses
                return otherwise()
        if self._failed == PROBES or not self._probing.acquire(blocking=False):
            return otherwise()
        try:
            return self._probe(key, start, end, otherwise)
        finally:
            self._probing.release()

    def _probe(self, key: str, start: int, end: int, otherwise: Otherwise) -> bytes:
        try:
            found = self._get(key, start, end)
        except Exception:  # s3fs says what it is, or reads it
            found = otherwise()
            self._failed += 1
        else:
            self._proved = True
        return found

    def _get(self, key: str, start: int, end: int) -> bytes:
        self._store = self._store or _opened(self._name, self._storage)
        try:
            return bytes(obstore.get(self._store, key, options={"range": (start, end)}).bytes())
        except ValueError:
            raise
        except Exception as error:
            raise _told(str(error)) from None


def is_plain(key: str) -> bool:
    """Whether obstore reads this key and no other: it drops slashes, refuses dots and what cannot be printed.

    s3fs reads a version where a key says `?versionId=`.
    """
    names = key.split("/")
    return not {"", ".", ".."} & set(names) and key.isprintable() and "?versionId=" not in key


def _told(text: str) -> Exception:
    """What obstore tells only in words."""
    if found := _ANSWERED.search(text):
        return RefusedError(int(found[1]), found[2] or "")
    return TimeoutError() if _TIMED_OUT.search(text) else ConnectionError()


def _opened(bucket: str, storage: Storage) -> S3Store:
    """A client that asks once. Its credentials are botocore's: obstore cannot read profiles or roles itself."""
    credentials = storage.credentials()
    if credentials is None and not storage.config.anonymous:
        raise PermissionError("no credentials")

    def current() -> Any:
        assert credentials is not None
        frozen = credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + CREDENTIALS_LAST,
        }

    place: Any = storage.s3_place()
    return S3Store(
        bucket,
        config=place,
        credential_provider=current if credentials else None,
        client_options={
            "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
            "read_timeout": timedelta(seconds=READ_TIMEOUT_S),
            "timeout": TRANSFER_TIMEOUT,
        },
        retry_config={"max_retries": 0},
    )
