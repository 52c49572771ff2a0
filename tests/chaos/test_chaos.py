"""Some rounds of chaos with known seeds, and that the faulting proxy does what it says."""

import time
from collections.abc import Iterator

import pytest
import s3fs
from botocore.exceptions import BotoCoreError

from pipeline.storage.filesystems import Storage
from tests.chaos import arena as chaos_arena, check, server
from tests.chaos.__main__ import line
from tests.chaos.arena import Arena
from tests.support import faults, seaweed
from tests.support.faults import Fault, Proxy, Weather

BUCKET = "faults"
BODY = bytes(range(256)) * 4


@pytest.fixture(scope="module")
def proxy(s3_server: seaweed.S3Server) -> Iterator[Proxy]:
    s3_server.filesystem().makedirs(BUCKET, exist_ok=True)
    s3_server.filesystem().pipe_file(f"{BUCKET}/there é%", BODY)
    with faults.proxy(s3_server.endpoint_url) as running:
        yield running


@pytest.fixture
def client(proxy: Proxy) -> Iterator[s3fs.S3FileSystem]:
    """One that asks once, through the proxy in calm weather."""
    proxy.set(Weather())
    yield server.impatient(proxy.endpoint_url)
    proxy.set(Weather())


def test_in_calm_weather_nothing_is_noticed(client: s3fs.S3FileSystem) -> None:
    assert client.cat_file(f"{BUCKET}/there é%") == BODY
    assert client.cat_file(f"{BUCKET}/there é%", start=5, end=9) == BODY[5:9]
    client.pipe_file(f"{BUCKET}/put", BODY, mode="create")
    with pytest.raises(OSError, match="pre-conditions"):
        client.pipe_file(f"{BUCKET}/put", BODY, mode="create")
    assert client.info(f"{BUCKET}/put")["size"] == len(BODY)
    client.rm([f"{BUCKET}/put"])
    with pytest.raises(FileNotFoundError):
        client.cat_file(f"{BUCKET}/put")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.ERROR_500, OSError),
        (Fault.ERROR_503, OSError),
        (Fault.RESET, BotoCoreError),
        (Fault.SILENCE, BotoCoreError),
        (Fault.HALF, Exception),  # aiohttp's own
    ],
)
def test_a_read_fails_as_the_weather_says(
    fault: Fault, error: type[Exception], proxy: Proxy, client: s3fs.S3FileSystem
) -> None:
    before = proxy.seen().faults.get(fault, 0)
    proxy.set(Weather({fault: 1.0}, silence_s=0.5))
    started = time.monotonic()
    with pytest.raises(error):
        client.cat_file(f"{BUCKET}/there é%")
    assert 1 <= proxy.seen().faults[fault] - before <= 2  # aiohttp repeats what fails on a kept connection
    assert time.monotonic() - started > (0.5 if fault == Fault.SILENCE else 0)


def test_a_dripping_body_arrives_whole_and_late(proxy: Proxy, client: s3fs.S3FileSystem) -> None:
    proxy.set(Weather({Fault.DRIP: 1.0}, drip_s=0.5))
    started = time.monotonic()
    assert client.cat_file(f"{BUCKET}/there é%") == BODY
    assert time.monotonic() - started > 0.4


def test_a_refused_write_does_not_land(proxy: Proxy, client: s3fs.S3FileSystem) -> None:
    proxy.set(Weather({Fault.REFUSE: 1.0}))
    with pytest.raises(PermissionError):
        client.pipe_file(f"{BUCKET}/refused", BODY)
    assert not client.exists(f"{BUCKET}/refused")


def test_a_write_whose_answer_is_lost_has_landed(proxy: Proxy, client: s3fs.S3FileSystem) -> None:
    proxy.set(Weather({Fault.LOST: 1.0}))
    with pytest.raises(BotoCoreError):
        client.pipe_file(f"{BUCKET}/lost", BODY)
    assert client.cat_file(f"{BUCKET}/lost") == BODY
    assert proxy.seen().landed[f"/{BUCKET}/lost"] in (1, 2)  # aiohttp repeats what fails on a kept connection


def test_a_late_write_lands_after_its_client_gave_up(proxy: Proxy, client: s3fs.S3FileSystem) -> None:
    proxy.set(Weather({Fault.LATE: 1.0}, late_s=0.7))
    with pytest.raises(BotoCoreError):
        client.pipe_file(f"{BUCKET}/late", BODY)
    assert not client.exists(f"{BUCKET}/late")
    while proxy.seen().in_flight:
        time.sleep(0.05)
    assert client.cat_file(f"{BUCKET}/late") == BODY


@pytest.mark.parametrize(("storage", "tries"), [(Storage().impatient(), 1), (Storage(), 4)])
def test_a_request_is_made_as_often_as_the_store_is_patient(
    storage: Storage, tries: int, proxy: Proxy, s3: seaweed.S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint_url)
    before = proxy.seen().faults.get(Fault.ERROR_503, 0)
    proxy.set(Weather({Fault.ERROR_503: 1.0}))
    fs, path = storage.filesystem(f"s3://{BUCKET}/there")
    fs.retries = 1
    with pytest.raises(OSError, match="Service Unavailable"):
        fs.cat_file(path)
    proxy.set(Weather())
    assert proxy.seen().faults[Fault.ERROR_503] - before == tries


def test_only_paths_that_match_are_struck(proxy: Proxy, client: s3fs.S3FileSystem) -> None:
    proxy.set(Weather({Fault.ERROR_500: 1.0}, matching="/other"))
    assert client.cat_file(f"{BUCKET}/there é%") == BODY
    with pytest.raises(OSError, match="Internal"):
        client.cat_file(f"{BUCKET}/other")


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with chaos_arena.arena(tmp_path_factory.mktemp("chaos")) as ready:
        yield ready


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(("store", "seed"), [("local", 7), ("s3", 25)])
def test_whatever_is_killed_and_fails_every_row_is_there_once(store: str, seed: int, arena: Arena) -> None:
    report = arena.play(store, seed)
    assert report.problems == [], line(store, report)
    assert report.tally.kills.total() + report.faults.total() > 0


@pytest.mark.slow
@pytest.mark.ray
def test_an_output_that_is_not_exact_does_not_pass(arena: Arena) -> None:
    """The verdict itself: a lost, a doubled and a changed row are seen."""
    rows = list(arena.expected(2, False))
    changed = {**rows[0], "label": "another"}
    found = check.differences([changed, *rows[2:], rows[5]], rows)
    assert [one.split(":")[0].split(";")[0] for one in found] == [
        "1 rows are doubled",
        "1 rows are missing",
        "1 rows differ",
    ]
