"""URIs -> bytes, or a row error. It does not know what the bytes are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ErrorCode, RowError, Stage, StorageError
from pipeline.storage import Storage, classify

_MESSAGES = {
    ErrorCode.NOT_FOUND: "there is no such object",
    ErrorCode.ACCESS_DENIED: "access is denied",
    ErrorCode.TIMEOUT: "the store did not answer in time",
    ErrorCode.UNAVAILABLE: "the store could not be reached or failed",
    ErrorCode.BAD_URI: "the uri does not lead to a file",
    ErrorCode.EMPTY: "the object has no bytes",
}


@dataclass(frozen=True)
class Request:
    """One image's bytes: a whole object, or `length` bytes from `offset` on."""

    uri: str
    offset: int | None = None
    length: int | None = None


def fetch(requests: Sequence[Request], storage: Storage, max_bytes: int) -> list[bytes | RowError]:
    """The bytes of every request, in order; one request to the store for each.

    Object stores are asked concurrently, as many at a time as fsspec allows. An object over `max_bytes`
    is never read beyond that.
    """
    results: dict[int, bytes | RowError] = {}
    stores: dict[int, _Store] = {}
    for index, request in enumerate(requests):
        try:
            fs, path = storage.filesystem(request.uri)
        except StorageError:
            results[index] = _error(ErrorCode.BAD_URI, _MESSAGES[ErrorCode.BAD_URI])
            continue
        # fsspec gives the same object for the same store: its requests can go out together.
        stores.setdefault(id(fs), _Store(fs, [])).wanted.append((index, path, request))
    for store in stores.values():
        results.update(_from_store(store, max_bytes))
    return [results[index] for index in range(len(requests))]


@dataclass(frozen=True)
class _Store:
    """A filesystem, and what is wanted of it: (index, path, request)."""

    fs: Any
    wanted: list[tuple[int, str, Request]]


def _from_store(store: _Store, max_bytes: int) -> Iterator[tuple[int, bytes | RowError]]:
    starts = [request.offset or 0 for _, _, request in store.wanted]
    most = [max_bytes + 1 if request.length is None else request.length for _, _, request in store.wanted]
    ends = [start + min(length, max_bytes + 1) for start, length in zip(starts, most, strict=True)]
    paths = [path for _, path, _ in store.wanted]
    try:
        found = store.fs.cat_ranges(paths, starts, ends, on_error="return")
    except Exception as error:  # a store that fails as a whole fails each of its rows
        found = [error] * len(paths)
    for (index, _, request), result in zip(store.wanted, found, strict=True):
        yield index, _checked(result, max_bytes, request.length)


def _checked(result: object, max_bytes: int, expected: int | None) -> bytes | RowError:
    if isinstance(result, BaseException):
        code = classify(result)
        return _error(code, _MESSAGES.get(code, code.value))
    assert isinstance(result, bytes)
    if len(result) > max_bytes:
        return _error(ErrorCode.TOO_LARGE, f"it has more than decode.max_bytes = {max_bytes} bytes")
    if not result:
        return _error(ErrorCode.EMPTY, _MESSAGES[ErrorCode.EMPTY])
    if expected is not None and len(result) < expected:
        return _error(ErrorCode.TRUNCATED, f"the object ends after {len(result)} of {expected} bytes")
    return result


def _error(code: ErrorCode, message: str) -> RowError:
    return RowError(Stage.FETCH, code, message)
