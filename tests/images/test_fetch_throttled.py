"""Stores that say *slow down* are waited for: over HTTP and S3, and until the patience is over."""

import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.config import StorageConfig
from pipeline.errors import ErrorCode, RowError
from pipeline.images import fetch as fetching
from pipeline.images.fetch import ATTEMPTS, Fetched, Fetcher, Request
from pipeline.storage.filesystems import Storage
from tests.support import faults, seaweed
from tests.support.faults import Fault, Weather
from tests.support.making import STORAGE
from tests.support.web import BODY, Web, serving


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("pipeline.images.pacing.FIRST_WAIT_S", 0.02)


def fetched(uri: str, patience_s: float = 20.0) -> Fetched:
    (found,) = Fetcher(STORAGE, 100_000, patience_s)([Request(uri)])
    return found


def failed(found: Fetched) -> RowError:
    assert isinstance(found.data, RowError)
    return found.data


@pytest.mark.parametrize(
    "said",
    [
        "429-6-0",
        "429-6-nothing",
        "503-6-0",
        "503-6-SlowDown",
        "503-6-RequestLimitExceeded",
        "400-6-Throttling",
        "429-6--5.5",  # a date that has passed
    ],
)
def test_a_throttled_image_is_asked_for_until_it_comes_however_often_that_is(web: Web, said: str) -> None:
    found = fetched(f"{web.url}/throttled/{said}")
    assert (found.data, found.attempts) == (BODY, 7)
    assert found.attempts > ATTEMPTS


@pytest.mark.parametrize("status", [503, 500])
def test_a_failure_that_is_not_throttling_gets_no_patience(web: Web, status: int) -> None:
    found = fetched(f"{web.url}/status/{status}")
    assert (failed(found).code, found.attempts) == (ErrorCode.UNAVAILABLE, ATTEMPTS)


@pytest.mark.parametrize("said", ["1", "+2.1"], ids=["seconds", "date"])
def test_retry_after_is_respected(web: Web, said: str) -> None:
    started = time.monotonic()
    assert fetched(f"{web.url}/throttled/429-1-{said}").data == BODY
    assert 0.95 <= time.monotonic() - started < 6


def test_throttling_takes_none_of_the_tries_for_other_failures(web: Web) -> None:
    found = list(
        Fetcher(STORAGE, 100_000)([Request(f"{web.url}/throttled/429-5-0"), Request(f"{web.url}/flaky/3")])
    )
    assert [(one.data, one.attempts) for one in found] == [(BODY, 6), (BODY, 4)]


def test_after_the_patience_an_image_is_a_row_error_and_those_behind_it_wait_no_longer(web: Web) -> None:
    started = time.monotonic()
    found = list(Fetcher(STORAGE, 100_000, patience_s=1.0)([Request(f"{web.url}/throttled/429-999-0")] * 80))
    assert 1.0 <= time.monotonic() - started < 4
    assert {(failed(one).code, failed(one).message) for one in found} == {
        (ErrorCode.UNAVAILABLE, "the store throttled every request for fetch.patience_s = 1 s")
    }
    assert found[-1].attempts == 1


def test_without_patience_a_throttled_image_is_asked_for_once(web: Web) -> None:
    assert fetched(f"{web.url}/throttled/429-1-0", patience_s=0.0).attempts == 1


def test_an_image_that_always_throttles_costs_only_itself_among_others(web: Web) -> None:
    stuck = Request(f"{web.url}/throttled/429-999-0")
    good = Request(f"{web.url}/plain/x")
    found = list(Fetcher(STORAGE, 100_000, patience_s=0.5)([good, stuck, *[good] * 50]))
    assert [isinstance(one.data, RowError) for one in found] == [False, True, *[False] * 50]


def test_a_store_that_serves_two_at_once_is_not_asked_for_thirty_for_long(web: Web) -> None:
    found = list(Fetcher(STORAGE, 100_000)([Request(f"{web.url}/crowded/2")] * 300))
    assert {one.data for one in found} == {BODY}
    assert web.asked["/crowded/2"] < 2 * 300


def test_other_stores_do_not_wait_for_one_that_throttles(web: Web) -> None:
    with serving() as other:
        fetcher = Fetcher(STORAGE, 100_000)
        slow, quick = Request(f"{web.url}/throttled/429-3-1"), Request(f"{other.url}/plain/x")
        started = time.monotonic()
        found = fetcher([quick, slow, quick, slow, quick])
        assert next(found).data == BODY
        assert time.monotonic() - started < 0.9
        assert [one.data for one in found] == [BODY] * 4


def test_closing_the_results_ends_the_wait_for_a_throttling_store(web: Web) -> None:
    fetcher = Fetcher(STORAGE, 100_000)
    found = fetcher([Request(f"{web.url}/plain/x"), *[Request(f"{web.url}/throttled/429-9-30")] * 4])
    assert next(found).data == BODY
    time.sleep(0.2)
    started = time.monotonic()
    found.close()
    fetcher._threads.shutdown(wait=True)
    assert time.monotonic() - started < 2


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize("key", ["throttled/a", "throttled//a"], ids=["obstore", "s3fs"])
def test_a_bucket_that_says_slow_down_is_waited_for(key: str, s3_server: seaweed.S3Server) -> None:
    fs = s3_server.filesystem()
    fs.makedirs("pacing", exist_ok=True)
    fs.pipe_file(f"pacing/{key}", BODY)
    with faults.proxy(s3_server.endpoint_url) as proxy:
        storage = Storage(StorageConfig(endpoint_url=proxy.endpoint_url))
        proxy.set(Weather({Fault.ERROR_503: 1.0}))
        calm = threading.Timer(2.0, proxy.set, [Weather()])  # longer than ATTEMPTS last
        calm.start()
        found = list(Fetcher(storage, 100_000)([Request(f"s3://pacing/{key}")] * 8))
        calm.join()
    assert [one.data for one in found] == [BODY] * 8
    assert sum(one.attempts for one in found) > len(found)


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_only_throttles_is_neither_left_to_s3fs_nor_asked_twice(
    s3_server: seaweed.S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.filesystem().makedirs("pacing", exist_ok=True)
    s3_server.filesystem().pipe_file("pacing/there", BODY)
    with faults.proxy(s3_server.endpoint_url) as proxy:
        fetcher = Fetcher(Storage(StorageConfig(endpoint_url=proxy.endpoint_url)), 100_000, patience_s=0.5)
        proxy.set(Weather({Fault.ERROR_503: 1.0}))
        (found,) = fetcher([Request("s3://pacing/there")])
        assert failed(found).code is ErrorCode.UNAVAILABLE
        assert proxy.seen().faults[Fault.ERROR_503] == found.attempts
        proxy.set(Weather())
        assert [one.data for one in fetcher([Request("s3://pacing/there")])] == [BODY]
        monkeypatch.delattr(Storage, "filesystem")  # nothing can be read through s3fs
        assert [one.data for one in fetcher([Request("s3://pacing/there")])] == [BODY]
