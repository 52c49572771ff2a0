"""URIs -> bytes, or a row error. It does not know what the bytes are."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.errors import ErrorCode, LakeLensError, RowError, Stage
from pipeline.storage import Storage, classify, scheme

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
    stores: dict[str, list[int]] = defaultdict(list)
    for index, request in enumerate(requests):
        stores[scheme(request.uri)].append(index)
    for indices in stores.values():
        results.update(_from_one_store([(i, requests[i]) for i in indices], storage, max_bytes))
    return [results[index] for index in range(len(requests))]


def _from_one_store(
    numbered: list[tuple[int, Request]], storage: Storage, max_bytes: int
) -> Iterable[tuple[int, bytes | RowError]]:
    wanted = []
    for index, request in numbered:
        try:
            fs, path = storage.filesystem(request.uri)
        except (LakeLensError, OSError) as error:
            yield index, _error(ErrorCode.BAD_URI, str(error))
            continue
        wanted.append((index, request.length, path, *_range(request, max_bytes)))
    if not wanted:
        return
    indices, lengths, paths, starts, ends = zip(*wanted, strict=True)
    found = fs.cat_ranges(list(paths), list(starts), list(ends), on_error="return")
    for index, expected, result in zip(indices, lengths, found, strict=True):
        yield index, _checked(result, max_bytes, expected)


def _range(request: Request, max_bytes: int) -> tuple[int, int]:
    start = request.offset or 0
    return start, start + min(request.length or max_bytes + 1, max_bytes + 1)


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
