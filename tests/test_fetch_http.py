"""HTTP servers of every kind: exactly the bytes that were asked for, or a code; tried again where it can help."""

import time
from collections.abc import Iterator

import aiohttp
import pytest

from pipeline import fetch as fetching
from pipeline import http
from pipeline.errors import ErrorCode, RowError
from pipeline.fetch import ATTEMPTS, Fetched, Fetcher, Request
from tests.making import STORAGE
from tests.web import BODY, Web, serving


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    timeout = aiohttp.ClientTimeout(total=1.0, sock_connect=0.5, sock_read=0.5)
    monkeypatch.setattr(http, "TIMEOUT", timeout)
    monkeypatch.setattr(fetching, "FIRST_PAUSE_S", 0.01)


def fetched(uri: str, offset: int | None = None, length: int | None = None, max_bytes: int = 100_000) -> Fetched:
    (found,) = Fetcher(STORAGE, max_bytes)([Request(uri, offset, length)])
    return found


def code(found: Fetched) -> ErrorCode | None:
    return found.data.code if isinstance(found.data, RowError) else None


STATUSES = {
    **dict.fromkeys((404, 410), ErrorCode.NOT_FOUND),
    **dict.fromkeys((401, 402, 403, 407, 451), ErrorCode.ACCESS_DENIED),
    **dict.fromkeys((400, 405, 406, 411, 414, 415, 418, 431), ErrorCode.BAD_URI),
    **dict.fromkeys((429, 500, 502, 503, 504, 599), ErrorCode.UNAVAILABLE),
    **{408: ErrorCode.TIMEOUT, 416: ErrorCode.EMPTY},
}


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_has_its_code_and_only_what_may_pass_is_tried_again(web: Web, status: int) -> None:
    path = f"/status/{status}"
    web.asked.clear()
    found = fetched(web.url + path)
    again = STATUSES[status] in (ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT)
    assert code(found) is STATUSES[status]
    assert web.asked[path] == found.attempts == (ATTEMPTS if again else 1)


@pytest.mark.parametrize("kind", ["ranges", "plain"])
def test_a_range_is_exactly_its_bytes_whether_the_server_knows_ranges_or_not(web: Web, kind: str) -> None:
    uri = f"{web.url}/{kind}/x"
    assert fetched(uri).data == BODY
    for offset, length in ((0, 1), (3, 300), (len(BODY) - 1, 1), (0, len(BODY)), (5000, 70)):
        assert fetched(uri, offset, length).data == BODY[offset : offset + length]
    assert code(fetched(uri, len(BODY) - 5, 10)) is ErrorCode.TRUNCATED
    assert code(fetched(uri, len(BODY) + 5, 10)) is ErrorCode.EMPTY


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/empty/x", ErrorCode.EMPTY),
        ("/wrongrange/x", ErrorCode.UNAVAILABLE),
        ("/norange/x", ErrorCode.UNAVAILABLE),
        ("/half/x", ErrorCode.UNAVAILABLE),
        ("/endless/x", ErrorCode.TOO_LARGE),
        ("/drip/x", ErrorCode.TIMEOUT),
        ("/silent/x", ErrorCode.TIMEOUT),
        ("/reset/x", ErrorCode.UNAVAILABLE),
        ("/garbage/x", ErrorCode.UNAVAILABLE),
        ("/loop/x", ErrorCode.BAD_URI),
    ],
)
def test_a_server_that_misbehaves_is_a_code_in_bounded_time(web: Web, path: str, expected: ErrorCode) -> None:
    started = time.monotonic()
    assert code(fetched(web.url + path)) is expected
    assert time.monotonic() - started < 8


def test_a_redirect_is_followed(web: Web) -> None:
    assert fetched(f"{web.url}/moved/x").data == BODY


@pytest.mark.parametrize("failures", range(ATTEMPTS + 1))
def test_a_server_that_recovers_gives_its_bytes_and_the_tries_are_counted(web: Web, failures: int) -> None:
    path = f"/flaky/{failures}"
    web.asked.clear()
    found = fetched(web.url + path)
    assert found.attempts == web.asked[path] == min(failures + 1, ATTEMPTS)
    assert (found.data == BODY) is (failures < ATTEMPTS)


@pytest.mark.parametrize(("max_bytes", "fits"), [(len(BODY), True), (len(BODY) - 1, False)])
def test_an_answer_over_the_limit_is_too_large(web: Web, max_bytes: int, fits: bool) -> None:
    found = fetched(f"{web.url}/plain/x", max_bytes=max_bytes)
    assert code(found) is (None if fits else ErrorCode.TOO_LARGE)


@pytest.mark.parametrize("uri", ["http://", "http:///x", "https://[::1/x", "http://127.0.0.1:99999/x"])
def test_a_url_that_is_none_is_a_bad_uri(uri: str) -> None:
    assert code(fetched(uri)) is ErrorCode.BAD_URI


def test_a_window_of_a_server_that_is_not_there_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real pauses
    started = time.monotonic()
    found = list(Fetcher(STORAGE, 1000)([Request(f"http://127.0.0.1:9/{i}") for i in range(32)]))
    assert {(code(one), one.attempts) for one in found} == {(ErrorCode.UNAVAILABLE, ATTEMPTS)}
    assert time.monotonic() - started < 5
