"""S3 objects are read by obstore once that has worked, as s3fs would read them, and else by s3fs."""

import string
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pipeline.config import StorageConfig
from pipeline.errors import ErrorCode, RowError
from pipeline.images.fetch import ATTEMPTS, Fetcher, Request
from pipeline.storage import aws, s3_objects as objects_module
from pipeline.storage.error_codes import RefusedError, classify
from pipeline.storage.filesystems import Storage
from pipeline.storage.s3_objects import PROBES, Objects, is_plain
from tests.support import faults, seaweed, web
from tests.support.faults import Fault, Proxy, Weather
from tests.support.objects import BUCKET, DATA, asked, never, proved, uri

ODD = [f"odd/a{character}b" for character in (*string.punctuation, " ", "é", "図", "𝕏", "%20", "%", "..", "::")]
SHIFTY = ["/leading", "trailing/", "a//b", "./a", "a/../b", "a/.", "tab\tname"]

pytestmark = pytest.mark.usefixtures("s3")


@pytest.fixture(scope="module", autouse=True)
def _bucket(s3_server: seaweed.S3Server) -> None:
    fs = s3_server.filesystem()
    fs.makedirs(BUCKET, exist_ok=True)
    fs.pipe_file(f"{BUCKET}/there", DATA)


@pytest.fixture(scope="module")
def proxy(s3_server: seaweed.S3Server) -> Iterator[Proxy]:
    with faults.proxy(s3_server.endpoint_url) as running:
        yield running


def through(proxy: Proxy) -> Storage:
    proxy.set(Weather())
    return Storage(StorageConfig(endpoint_url=proxy.endpoint_url))


@pytest.mark.parametrize(
    ("start", "end", "expected"), [(0, 5, DATA[:5]), (7, 9, DATA[7:9]), (1000, 2000, DATA[1000:])]
)
def test_a_range_is_read_and_ends_with_the_object(start: int, end: int, expected: bytes) -> None:
    assert proved().read(uri("there"), start, end, never) == expected


@pytest.mark.parametrize("key", ODD)
def test_odd_keys_lead_to_their_own_objects(key: str, s3_server: seaweed.S3Server) -> None:
    s3_server.filesystem().pipe_file(f"{BUCKET}/{key}", key.encode())
    assert is_plain(key)
    assert proved().read(uri(key), 0, 9999, never) == key.encode()


@pytest.mark.parametrize("bucket", ["my bucket", "new\nline", "..", "a\\b", "a%2Fb", "b?c", "#x", "arn:aws:s3:x"])
def test_names_that_are_no_buckets_are_left_to_s3fs(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = asked(monkeypatch)
    assert Objects(StorageConfig()).read(f"s3://{bucket}/there", 0, 9, lambda: b"by s3fs") == b"by s3fs"
    (found,) = Fetcher(Storage(), 9999)([Request(f"s3://{bucket}/{BUCKET}/there")])
    assert isinstance(found.data, RowError)
    assert keys == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("AWS_ACCESS_KEY_ID", "a\n"), ("AWS_SESSION_TOKEN", "a\n"), ("AWS_ENDPOINT_URL", "127.0.0.1:80")],
)
def test_what_makes_rust_panic_is_left_to_s3fs(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert Objects(StorageConfig(region="us-east-1")).read(uri("there"), 0, 9, lambda: b"by s3fs") == b"by s3fs"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9"),
        ("AWS_ENDPOINT", "http://127.0.0.1:9"),
        ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true"),
        ("AWS_SKIP_SIGNATURE", "true"),
        ("AWS_S3_EXPRESS", "true"),
    ],
)
def test_variables_that_mean_nothing_to_botocore_or_less_than_the_config_change_nothing(
    name: str, value: str, s3_server: seaweed.S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert proved(Storage(StorageConfig(endpoint_url=s3_server.endpoint_url)))


@pytest.mark.parametrize(
    "key",
    [
        "status code: 200 x",
        "a<Code>SlowDown</Code>",
        "x not found: Error performing GET a in b - Server returned c",
    ],
)
def test_a_key_cannot_forge_an_answer(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefusedError) as refused:
        proved().read(uri(key), 0, 9999, never)
    assert (refused.value.status, refused.value.code) == (404, "NoSuchKey")
    with web.serving() as server:
        anonymous = StorageConfig(endpoint_url=server.url, anonymous=True)
        found = Objects(anonymous)
        assert found.read("s3://status/200", 0, 1, lambda: b"x")
        found._bucket("status")._proved = True
        with pytest.raises(RefusedError) as refused:
            found.read(f"s3://status/403/{key}", 0, 9, never)
    assert (refused.value.status, refused.value.code) == (403, "")


@pytest.mark.parametrize("key", ["plain/x", "empty/x", "norange/x"])
def test_an_answer_that_only_obstore_does_not_take_is_for_s3fs_to_read(key: str) -> None:
    bucket, _, key = key.partition("/")
    with web.serving() as server:
        found = Objects(StorageConfig(endpoint_url=server.url, anonymous=True))
        found._bucket(bucket)._proved = True
        found._bucket(bucket)._store = objects_module._opened(bucket, found._config)
        assert found.read(f"s3://{bucket}/{key}", 0, 9, lambda: b"by s3fs") == b"by s3fs"


@pytest.mark.parametrize("key", [*SHIFTY, "there?versionId=1"])
def test_keys_that_obstore_reads_as_others_or_refuses_are_left_to_s3fs(key: str) -> None:
    assert proved().read(uri(key), 0, 9999, lambda: b"by s3fs") == b"by s3fs"


@pytest.mark.parametrize(
    ("key", "start", "answer"),
    [("nowhere", 0, (404, "NoSuchKey")), ("there", 5000, (416, "InvalidRange"))],
)
def test_what_the_store_answers_is_told_with_status_and_code(
    key: str, start: int, answer: tuple[int, str]
) -> None:
    with pytest.raises(RefusedError) as refused:
        proved().read(uri(key), start, 9999, never)
    assert (refused.value.status, refused.value.code) == answer


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault.ERROR_500, ErrorCode.UNAVAILABLE),
        (Fault.ERROR_503, ErrorCode.UNAVAILABLE),
        (Fault.RESET, ErrorCode.UNAVAILABLE),
        (Fault.SILENCE, ErrorCode.TIMEOUT),
        (Fault.HALF, ErrorCode.UNAVAILABLE),
    ],
)
def test_what_goes_wrong_later_is_asked_once_and_has_its_code(
    fault: Fault, code: ErrorCode, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws, "READ_TIMEOUT_S", 0.5)
    found = proved(through(proxy))
    before = proxy.seen().faults.get(fault, 0)
    proxy.set(Weather({fault: 1.0}, silence_s=2.0))
    with pytest.raises(Exception) as raised:  # noqa: PT011 - any of them
        found.read(uri("there"), 0, 9999, never)
    assert classify(raised.value) is code
    assert proxy.seen().faults[fault] - before == 1


def test_a_body_that_drips_is_left_after_the_time_for_an_object(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_module, "TRANSFER_TIMEOUT", objects_module.timedelta(seconds=1))
    found = proved(through(proxy))
    proxy.set(Weather({Fault.DRIP: 1.0}, drip_s=5.0))
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        found.read(uri("there"), 0, 9999, never)
    assert time.monotonic() - started < 4


def test_a_fetch_tries_again_what_may_pass_and_counts_it(proxy: Proxy) -> None:
    fetcher = Fetcher(through(proxy), 9999)
    assert [one.data for one in fetcher([Request(uri("there"))])] == [DATA]
    before = proxy.seen().faults.get(Fault.ERROR_500, 0)
    proxy.set(Weather({Fault.ERROR_500: 1.0}))
    (found,) = fetcher([Request(uri("there"))])
    assert isinstance(found.data, RowError)
    assert (found.data.code, found.attempts) == (ErrorCode.UNAVAILABLE, ATTEMPTS)
    assert proxy.seen().faults[Fault.ERROR_500] - before == ATTEMPTS


def test_a_bucket_that_only_s3fs_can_read_is_read_by_it_and_soon_not_probed_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if only s3fs could follow where the bucket leads."""
    options, probed = aws.obstore_options, asked(monkeypatch)
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}
    monkeypatch.setattr(aws, "obstore_options", lambda config: options(config) | nowhere)
    fetcher = Fetcher(Storage(), 9999)
    for _ in range(2 * PROBES):
        assert [one.data for one in fetcher([Request(uri("there"))])] == [DATA]
    assert probed == ["there"] * PROBES


def test_a_store_that_fails_both_is_not_held_against_obstore(proxy: Proxy) -> None:
    found = Objects(through(proxy).config)
    proxy.set(Weather({Fault.ERROR_500: 1.0}))

    def fails() -> bytes:
        raise ConnectionError

    for _ in range(2 * PROBES):
        with pytest.raises(ConnectionError):
            found.read(uri("there"), 0, 9999, fails)
    proxy.set(Weather())
    assert found.read(uri("there"), 0, 9999, never) == DATA


def test_an_object_that_is_not_there_is_enough_to_know_that_obstore_can_read() -> None:
    found = Objects(StorageConfig())
    assert found.read(uri("nowhere"), 0, 9, lambda: b"by s3fs") == b"by s3fs"
    assert found.read(uri("there"), 0, 9999, never) == DATA


def test_until_it_has_worked_one_request_at_a_time_probes(proxy: Proxy) -> None:
    found = Objects(through(proxy).config)
    proxy.set(Weather({Fault.SILENCE: 1.0}, silence_s=3.0))
    read: list[bytes] = []
    probing = threading.Thread(target=lambda: read.append(found.read(uri("there"), 0, 9999, lambda: b"first")))
    probing.start()
    deadline = time.monotonic() + 2
    while not proxy.seen().in_flight and time.monotonic() < deadline:
        time.sleep(0.02)
    started = time.monotonic()
    assert found.read(uri("there"), 0, 9999, lambda: b"second") == b"second"
    assert time.monotonic() - started < objects_module.PATIENCE_S + 1
    probing.join()
    assert read == [b"first"]


def test_many_objects_are_read_at_once_without_s3fs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Storage, "filesystem", never_opened)
    fetcher = Fetcher(Storage(), 9999)
    found = fetcher([Request(uri("there"), 4, 4)] * 100)
    assert [one.data for one in found] == [DATA[4:8]] * 100


def never_opened(self: Storage, uri: str) -> Callable[[], None]:
    raise AssertionError("this is for obstore to read")
