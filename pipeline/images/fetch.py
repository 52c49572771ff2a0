"""URIs -> bytes, or a row error. This module does not know what the bytes mean."""

import os
import random
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import ErrorCode, RowError, Stage, StorageError
from pipeline.images.manifest_bytes import CarriedBytes
from pipeline.images.pacing import GivenUpError, Pace, ThrottledError, Turn
from pipeline.storage import data_uris
from pipeline.storage.error_codes import MESSAGES, RETRYABLE, classify
from pipeline.storage.fast_paths import FastPaths
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import is_data, is_local, row_uri, store_of

LOOK_AHEAD = 32
"""Most images that are in flight, or wait to be decoded, at once."""
WINDOW_BYTES = 1 << 30
"""Most bytes that these may hold together: 21 images with the default `decode.max_bytes` of 50 MB, and never fewer
than two."""
QUICK_S = 0.002
"""A local file that is read faster than this is read without a thread: handing it to one costs 0.1 to 0.3 ms."""
ATTEMPTS = 4
"""Tries of a retryable failure, with pauses of up to 0.2, 0.4 and 0.8 seconds between them."""
FIRST_PAUSE_S = 0.2
STORES = 1024
"""Stores whose pace is remembered at once: images of the web come from many hosts."""


@dataclass(frozen=True)
class Request:
    """A request for one image's bytes: a whole object, or `length` bytes from `offset` on.

    If `carried_in` names a Parquet manifest, the bytes are in its row `row` (from 0) and column `column`. If that
    value is null, they are behind the URI.
    """

    uri: str
    offset: int | None = None
    length: int | None = None
    carried_in: str | None = None
    row: int | None = None
    column: str = "bytes"


@dataclass(frozen=True)
class Fetched:
    """The bytes or the error of a request, and how often the store was asked, throttled requests included."""

    data: bytes | RowError
    attempts: int = 1


class Fetcher:
    """Fetches images, several at once, and yields them in order as they arrive. Not safe for threads.

    A store that throttles gets fewer requests at once. Its images fail only when it has served no request for
    `patience_s` seconds. Throttled requests do not count towards the `ATTEMPTS`.

    At most `min(LOOK_AHEAD, max(2, WINDOW_BYTES // max_bytes))` images are in flight or wait, each of at most
    `max_bytes` + 1 bytes: 1 GiB with the defaults.
    """

    def __init__(self, storage: Storage, max_bytes: int, patience_s: float = 60.0) -> None:
        self._storage = storage.impatient()
        self._max_bytes = max_bytes
        self._ahead = min(LOOK_AHEAD, max(2, WINDOW_BYTES // max_bytes))
        self._fast_paths = FastPaths(storage.config)
        self._carried = CarriedBytes(storage)
        self._files_are_quick = True
        ahead = self._ahead
        self._pace = lru_cache(STORES)(lambda store: Pace(ahead, patience_s))
        self._numbers = count()
        # fsspec runs object stores on an event loop of its own: a thread here only waits for its answer.
        self._threads = ThreadPoolExecutor(self._ahead, thread_name_prefix="fetch")

    def __call__(self, requests: Sequence[Request]) -> Iterator[Fetched]:
        """Yield the bytes of every request, in order. It reads at most `max_bytes` + 1 bytes of an object."""
        waiting: deque[Future[Fetched]] = deque()
        given_up = threading.Event()
        try:
            for request in requests:
                waiting.append(self._start(request, given_up))
                # No further ahead than needed: bytes that were read just now are still in the CPU's cache.
                if waiting[0].done() or len(waiting) == self._ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            given_up.set()  # a thread that waits for a throttling store would keep the process alive
            for future in waiting:
                future.cancel()

    def _start(self, request: Request, given_up: threading.Event) -> "Future[Fetched]":
        manifest = request.carried_in
        found = None if manifest is None else self._read_in_order(request, manifest, given_up)
        if found is None and is_data(request.uri):
            found = _read_with_retries(partial(self._read, request))
        elif found is None and not is_local(request.uri):
            return self._threads.submit(
                _read_paced, partial(self._read, request), self._turn(request.uri, given_up)
            )
        elif found is None and self._files_are_quick:
            found = self._read_timed(request)
        elif found is None:
            return self._threads.submit(self._read_timed, request)
        done: Future[Fetched] = Future()
        done.set_result(found)
        return done

    def _read_in_order(self, request: Request, manifest: str, given_up: threading.Event) -> Fetched | None:
        """Read carried bytes here and not in a thread: rows of a Parquet file are cheap to read only in order."""
        read = partial(self._read_carried, request)
        found: Fetched | None = (
            _read_with_retries(read) if is_local(manifest) else _read_paced(read, self._turn(manifest, given_up))
        )
        return found

    def _turn(self, uri: str, given_up: threading.Event) -> Turn:
        return Turn(self._pace(store_of(uri)), next(self._numbers), given_up)

    def _read_timed(self, request: Request) -> Fetched:
        """Read a local file, and note whether it was quick: some file systems are mounted over a network."""
        started = time.perf_counter()
        found: Fetched = _read_with_retries(lambda: self._read(request))
        self._files_are_quick = time.perf_counter() - started < QUICK_S
        return found

    def _read(self, request: Request) -> bytes:
        """Read the bytes behind the URI in one request. Raises: RowError, and whatever the store raises."""
        start, length = request.offset or 0, request.length
        if length is not None and length > self._max_bytes:
            raise self._too_large()
        if length == 0:
            raise _error(ErrorCode.EMPTY, MESSAGES[ErrorCode.EMPTY])
        most = self._max_bytes + 1 if length is None else length
        if is_data(request.uri):
            return self._check_size(data_uris.content(request.uri)[start : start + most], length)
        if (fast := self._fast_paths.of(request.uri)) is not None:
            otherwise = partial(self._read_through_fsspec, request.uri, start, start + most)
            return self._check_size(fast.read(request.uri, start, start + most, otherwise), length)
        fs, path = self._open(request.uri)
        if not isinstance(fs, LocalFileSystem):
            return self._check_size(bytes(fs.cat_file(path, start=start, end=start + most)), length)
        size = _size_of_file(path) - start
        if length is None and size >= most:
            raise self._too_large()
        with open(path, "rb") as file:
            file.seek(start)
            return self._check_size(file.read(max(0, min(most, size))), length)

    def _read_through_fsspec(self, uri: str, start: int, end: int) -> bytes:
        fs, path = self._open(uri)
        return bytes(fs.cat_file(path, start=start, end=end))

    def _open(self, uri: str) -> tuple[Any, str]:
        try:
            return self._storage.filesystem(uri)
        except StorageError as error:
            raise error.__cause__ or error from None

    def _read_carried(self, request: Request) -> bytes | None:
        """Read the bytes in the manifest; None if they are null there and the URI leads elsewhere."""
        assert request.carried_in is not None
        assert request.row is not None
        found = self._carried.read(request.carried_in, request.column, request.row)
        if found is None and request.uri == row_uri(request.carried_in, request.row):
            raise _error(ErrorCode.EMPTY, "the manifest row has neither bytes nor a URI")
        return None if found is None else self._check_size(found, None)

    def _check_size(self, found: bytes, expected: int | None) -> bytes:
        if len(found) > self._max_bytes:
            raise self._too_large()
        if not found:
            raise _error(ErrorCode.EMPTY, MESSAGES[ErrorCode.EMPTY])
        if expected is not None and len(found) < expected:
            raise _error(ErrorCode.TRUNCATED, f"the object ends after {len(found)} of {expected} bytes")
        return found

    def _too_large(self) -> RowError:
        return _error(ErrorCode.TOO_LARGE, f"the file has more than decode.max_bytes = {self._max_bytes} bytes")


def _read_with_retries(read: Callable[[], bytes | None]) -> Any:
    """Read, and try again after a retryable failure. Return None if the read returns None."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            found = read()
            return None if found is None else Fetched(found, attempt)
        except GivenUpError:
            raise
        except ThrottledError as error:  # the store's patience is over: no further tries
            return Fetched(_error(ErrorCode.UNAVAILABLE, str(error)), attempt)
        except Exception as error:  # a store raises what it likes
            failed = error if isinstance(error, RowError) else _row_error(error)
        if failed.code not in RETRYABLE:
            break
        if attempt < ATTEMPTS:  # full jitter: many workers must not come back at the same moment
            time.sleep(random.uniform(0, FIRST_PAUSE_S * 2 ** (attempt - 1)))  # noqa: S311
    return Fetched(failed, attempt)


def _read_paced(read: Callable[[], bytes | None], turn: Turn) -> Any:
    """Read as `_read_with_retries` does, from a store that may throttle. Raises: GivenUpError."""
    found = _read_with_retries(lambda: turn.served(read))
    return found and Fetched(found.data, turn.asked)


def _size_of_file(path: str) -> int:
    """Return a regular file's size. Raises: RowError for any other file, because opening a pipe can wait for ever;
    OSError."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise _error(ErrorCode.BAD_URI, MESSAGES[ErrorCode.BAD_URI])
    return status.st_size


def _row_error(error: Exception) -> RowError:
    code = classify(error)
    return _error(code, MESSAGES[code])


def _error(code: ErrorCode, message: str) -> RowError:
    return RowError(Stage.FETCH, code, message)
