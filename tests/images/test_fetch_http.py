"""HTTP servers of every kind: exactly the bytes that were asked for, or a code; tried again where it can help."""

import io
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import __version__
from pipeline.config import StorageConfig
from pipeline.errors import ErrorCode, RowError
from pipeline.images import fetch as fetching
from pipeline.images.fetch import ATTEMPTS, Fetched, Fetcher, Request
from pipeline.schema import CARRIED_IN, ROW
from pipeline.storage import http
from pipeline.storage.filesystems import Storage
from tests.support.making import STORAGE
from tests.support.manifests import read
from tests.support.web import BODY, Web, serving


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
    (found,) = Fetcher(STORAGE, max_bytes, patience_s=0.0)([Request(uri, offset, length)])
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
def test_every_status_has_its_code_and_only_retryable_ones_are_retried(web: Web, status: int) -> None:
    path = f"/status/{status}"
    web.asked.clear()
    found = fetched(web.url + path)
    again = STATUSES[status] in (ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT) and status != 429
    assert code(found) is STATUSES[status]
    assert found.attempts == (ATTEMPTS if again else 1)
    assert web.asked[path] == (2 if status == 416 else found.attempts)  # once more without a range


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


@pytest.mark.parametrize("kind", ["sized", "bare"])
def test_a_server_that_refuses_a_range_past_the_end_is_asked_for_another(web: Web, kind: str) -> None:
    uri = f"{web.url}/strict/{kind}"
    assert fetched(uri).data == BODY
    assert fetched(uri, 5, 70).data == BODY[5:75]
    assert code(fetched(uri, len(BODY) - 5, 10)) is ErrorCode.TRUNCATED
    assert code(fetched(uri, len(BODY) + 5, 10)) is ErrorCode.EMPTY


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("/plain/a%3Ab%40c.jpg?sig=ab%2Fcd%3D&x=%20y", None),
        ("/plain/a'(b)!$&,;=:@[c]{d}|^`~<e>.jpg?q=a/b?c", None),
        ("/plain/%2e%2E/./x%C3%a9.jpg", None),
        ("/plain/50%.jpg", None),
        ("/plain/my photo é.jpg", "/plain/my%20photo%20%C3%A9.jpg"),
    ],
)
def test_a_url_is_sent_as_it_is_written(web: Web, written: str, sent: str | None) -> None:
    web.sent.clear()
    assert fetched(web.url + written).data == BODY
    assert [path for path, _ in web.sent] == [sent or written]


def test_a_redirects_target_is_sent_as_it_is_written(web: Web) -> None:
    web.sent.clear()
    assert fetched(f"{web.url}/signed/x").data == BODY
    assert web.sent[-1][0] == "/ranges/a%3Ab%40c?sig=ab%2Fcd%3D&x='y'"


def test_a_host_that_is_not_ascii_is_asked_for_by_its_ascii_name() -> None:
    assert str(http.exact_url("http://bücher.example/é")) == "http://xn--bcher-kva.example/%C3%A9"


def test_a_request_sends_the_user_agent(web: Web) -> None:
    web.sent.clear()
    fetched(f"{web.url}/plain/x")
    (mine,) = Fetcher(Storage(StorageConfig(user_agent="someone/1")), 100_000)([Request(f"{web.url}/plain/x")])
    assert mine.data == BODY
    assert [agent for _, agent in web.sent] == [f"LakeLens/{__version__}", "someone/1"]


def test_images_come_through_the_proxy_of_the_environment_but_for_the_hosts_that_need_none(
    web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("http_proxy", web.url.replace("://", "://someone:secret@"))
    monkeypatch.setenv("no_proxy", "direct.invalid,127.0.0.1")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine images.invalid login a password b\n")
    web.sent.clear()
    signed = web.signed
    assert fetched("http://images.invalid/ranges/a%2Fb.jpg").data == BODY
    assert fetched(f"{web.url}/ranges/x").data == BODY
    assert [path for path, _ in web.sent] == ["http://images.invalid/ranges/a%2Fb.jpg", "/ranges/x"]
    assert web.signed == signed
    direct = fetched("http://direct.invalid/x")
    assert code(direct) is ErrorCode.UNAVAILABLE
    assert isinstance(direct.data, RowError)
    assert "secret" not in direct.data.message


def test_a_redirect_is_followed(web: Web) -> None:
    assert fetched(f"{web.url}/moved/x").data == BODY


@pytest.mark.parametrize("failures", range(ATTEMPTS + 1))
def test_a_server_that_recovers_gives_its_bytes_and_attempts_are_counted(web: Web, failures: int) -> None:
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
def test_a_malformed_url_is_a_bad_uri(uri: str) -> None:
    assert code(fetched(uri)) is ErrorCode.BAD_URI


def test_many_requests_to_a_missing_server_fail_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real pauses
    started = time.monotonic()
    found = list(Fetcher(STORAGE, 1000)([Request(f"http://127.0.0.1:9/{i}") for i in range(32)]))
    assert {(code(one), one.attempts) for one in found} == {(ErrorCode.UNAVAILABLE, ATTEMPTS)}
    assert time.monotonic() - started < 5


PRESIGNED = "m.parquet?X-Amz-Signature=ab%2Fc"


@pytest.mark.parametrize("kind", ["ranges", "plain", "strict"])
def test_a_file_behind_a_presigned_url_is_opened_by_get_alone(web: Web, kind: str) -> None:
    url = f"{web.url}/{kind}/{PRESIGNED}"
    web.asked.clear()
    web.sent.clear()
    fs, path = STORAGE.filesystem(url)
    assert fs.exists(path)
    assert not fs.isdir(path)
    assert (fs.info(path)["size"], fs.size(path)) == (len(BODY), len(BODY))
    with fs.open(path) as file:
        assert (file.seek(-5, 2), file.read()) == (len(BODY) - 5, BODY[-5:])
        assert (file.seek(100), file.read(7)) == (100, BODY[100:107])
    assert fs.modified(path).year == 1970
    assert web.asked["HEAD"] == 0
    assert {sent.partition("/ranges/")[2] for sent, _ in web.sent if "/ranges/" in sent} <= {PRESIGNED}


def test_what_is_not_there_or_denied_over_http_is_told_apart(web: Web) -> None:
    def exists(path: str) -> bool:
        fs, url = STORAGE.filesystem(web.url + path)
        return bool(fs.exists(url))

    assert exists("/ranges/x")
    assert exists("/status/416")
    assert not exists("/status/404")
    assert not exists("/status/410")
    with pytest.raises(aiohttp.ClientResponseError):
        exists("/status/403")


def test_duckdb_reads_a_parquet_file_over_http(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"uri": [f"/{n}.jpg" for n in range(500)]}), buffer)
    monkeypatch.setattr("tests.support.web.BODY", buffer.getvalue())
    for kind in ("ranges", "plain"):
        url = f"{web.url}/{kind}/{PRESIGNED}"
        with duckdb.connect() as connection:
            connection.register_filesystem(STORAGE.filesystem(url)[0])
            found = connection.execute(f"SELECT count(*), max(uri) FROM read_parquet('{url}')").fetchall()
        assert found == [(500, "/99.jpg")]


def test_a_manifest_behind_a_presigned_url_points_beside_it_without_its_signature(
    web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tests.support.web.BODY", b"uri,dataset\nsub/a.jpg,x\n/b.jpg,y\n")
    rows = read(tmp_path, f"{web.url}/ranges/list.csv?X-Amz-Signature=a/b")
    assert rows.column("uri").to_pylist() == [f"{web.url}/ranges/sub/a.jpg", "/b.jpg"]
    buffer = io.BytesIO()
    pq.write_table(pa.table({"uri": ["c.jpg", None], "bytes": [b"one", b"two"]}), buffer)
    monkeypatch.setattr("tests.support.web.BODY", buffer.getvalue())
    url = f"{web.url}/ranges/{PRESIGNED}"
    rows = read(tmp_path, url)
    assert rows.column("uri").to_pylist() == [f"{web.url}/ranges/c.jpg", f"{web.url}/ranges/m.parquet#row=1"]
    requests = [Request(row["uri"], carried_in=row[CARRIED_IN], row=row[ROW]) for row in rows.to_pylist()]
    assert [found.data for found in Fetcher(STORAGE, 1000)(requests)] == [b"one", b"two"]


def test_every_request_of_the_file_system_goes_through_the_proxy(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", web.url.replace("://", "://someone:secret@"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    web.sent.clear()
    signed = web.signed
    fs, url = STORAGE.filesystem("http://images.invalid/ranges/x")
    assert fs.exists(url)
    assert fs.info(url)["size"] == len(BODY)
    assert fs.cat_file(url) == BODY
    assert fs.ls(url, detail=False) == []
    assert not fs.isdir(url)
    with fs.open(url) as file:
        assert file.read() == BODY
    assert {sent for sent, _ in web.sent} == {"http://images.invalid/ranges/x"}
    assert web.signed == signed
