"""URIs become bytes or a row error, one for one."""

import os
import threading
import time
import zipfile
from pathlib import Path

import pytest

from pipeline.errors import ErrorCode, RowError, Stage
from pipeline.images import fetch as fetch_module
from pipeline.images.fetch import Fetcher, Request
from pipeline.storage.filesystems import Storage
from tests.support.making import STORAGE

DATA = bytes(range(100))


def fetch(requests: list[Request], storage: Storage, max_bytes: int) -> list[bytes | RowError]:
    return [found.data for found in Fetcher(storage, max_bytes)(requests)]


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "data").write_bytes(DATA)
    return str(tmp_path / "data")


def fetch_one(request: Request, max_bytes: int = 1000) -> bytes | ErrorCode:
    (found,) = fetch([request], STORAGE, max_bytes)
    if isinstance(found, RowError):
        assert found.stage is Stage.FETCH
        return found.code
    return found


def test_results_are_in_the_order_of_the_requests_with_errors_in_between(tmp_path: Path) -> None:
    requests = []
    for number in range(20):
        if number % 3:
            (tmp_path / f"{number}").write_bytes(b"%d" % number)
        requests.append(Request(str(tmp_path / f"{number}")))
    requests.insert(5, Request("nosuchscheme://x"))
    found = fetch(requests, STORAGE, 1000)
    expected = [b"%d" % n if n % 3 else ErrorCode.NOT_FOUND for n in range(20)]
    expected.insert(5, ErrorCode.BAD_URI)
    assert [r.code if isinstance(r, RowError) else r for r in found] == expected


@pytest.mark.parametrize("slow", [False, True])
def test_slow_files_are_read_by_many_threads_and_quick_ones_by_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    (tmp_path / "file").write_bytes(DATA)
    readers, size_of_file = set(), fetch_module._size_of_file

    def seen(path: str) -> int:
        readers.add(threading.current_thread())
        time.sleep(0.02 if slow else 0)
        return size_of_file(path)

    monkeypatch.setattr(fetch_module, "_size_of_file", seen)
    monkeypatch.setattr(fetch_module, "QUICK_S", 0.02 if slow else 1000)
    assert fetch([Request(str(tmp_path / "file"))] * 40, STORAGE, 1000) == [DATA] * 40
    assert len(readers) > 8 if slow else readers == {threading.main_thread()}


def test_no_requests_give_no_results() -> None:
    assert fetch([], STORAGE, 1000) == []


def test_a_path_and_its_file_uri_are_the_same_object(file: str) -> None:
    uris = [file, f"file://{file}", f"file:{file}", f"file://localhost{file}"]
    assert fetch([Request(uri) for uri in uris], STORAGE, 1000) == [DATA] * 4


def test_a_file_uri_may_be_percent_encoded_or_not(tmp_path: Path) -> None:
    (tmp_path / "my photo.jpg").write_bytes(DATA)
    uris = [
        (tmp_path / "my photo.jpg").as_uri(),
        f"file:{tmp_path}/my photo.jpg",
        f"file:{tmp_path}/my%20photo.jpg",
    ]
    assert fetch([Request(uri) for uri in uris], STORAGE, 1000) == [DATA] * 3
    assert fetch_one(Request(f"file:{tmp_path}/my%20cat.jpg")) is ErrorCode.NOT_FOUND


def test_one_object_can_be_requested_many_times(file: str) -> None:
    requests = [Request(file), Request(file, 3, 2), Request(file), Request(file, 3, 2)]
    assert fetch(requests, STORAGE, 1000) == [DATA, DATA[3:5], DATA, DATA[3:5]]


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (0, 100), (10, 5), (99, 1), (10, 90)])
def test_a_range_is_exactly_its_bytes(file: str, offset: int, length: int) -> None:
    assert fetch_one(Request(file, offset, length)) == DATA[offset : offset + length]


def test_a_range_that_ends_after_the_object_is_truncated(file: str) -> None:
    (found,) = fetch([Request(file, 90, 20)], STORAGE, 1000)
    assert isinstance(found, RowError)
    assert (found.code, found.message) == (ErrorCode.TRUNCATED, "the object ends after 10 of 20 bytes")


def test_a_range_that_starts_after_the_object_is_empty(file: str) -> None:
    assert fetch_one(Request(file, 100, 5)) is ErrorCode.EMPTY
    assert fetch_one(Request(file, 500, 5)) is ErrorCode.EMPTY


@pytest.mark.parametrize("offset", [0, 10])
def test_a_range_of_no_bytes_is_empty(file: str, offset: int) -> None:
    assert fetch_one(Request(file, offset, 0)) is ErrorCode.EMPTY


@pytest.mark.parametrize(("max_bytes", "fits"), [(101, True), (100, True), (99, False), (1, False)])
def test_an_object_over_the_limit_is_too_large(file: str, max_bytes: int, fits: bool) -> None:
    assert fetch_one(Request(file), max_bytes) == (DATA if fits else ErrorCode.TOO_LARGE)
    assert fetch_one(Request(file, 0, 100), max_bytes) == (DATA if fits else ErrorCode.TOO_LARGE)


def test_a_small_range_of_a_large_object_is_not_too_large(file: str) -> None:
    assert fetch_one(Request(file, 50, 10), max_bytes=10) == DATA[50:60]


def test_a_huge_object_is_not_read_beyond_the_limit(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 42)  # 4 TB of nothing: reading it would not end
    assert fetch_one(Request(str(tmp_path / "sparse"))) is ErrorCode.TOO_LARGE


def test_an_empty_file_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    assert fetch_one(Request(str(tmp_path / "a"))) is ErrorCode.EMPTY


@pytest.mark.parametrize("name", ["nowhere", "data/below", "*", "data?"])
def test_a_missing_file_is_not_found(file: str, name: str) -> None:
    assert fetch_one(Request(str(Path(file).parent / name))) is ErrorCode.NOT_FOUND


@pytest.mark.parametrize("uri", ["", ".", "/", "nosuchscheme://a", "gs://lake/a", "s3://", "a\0b"])
def test_a_uri_that_leads_to_no_file_is_a_bad_uri(uri: str) -> None:
    assert fetch_one(Request(uri)) is ErrorCode.BAD_URI


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_denied(file: str) -> None:
    os.chmod(file, 0)
    assert fetch_one(Request(file)) is ErrorCode.ACCESS_DENIED


@pytest.mark.parametrize("name", ["a b.jpg", "100%.jpg", "a%20b", "grün-猫.png", "a#b", "a?b", "[x]", "a:b"])
def test_a_file_can_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert fetch_one(Request(str(tmp_path / name))) == b"x"


def test_the_message_of_a_failure_is_the_same_in_every_run(tmp_path: Path) -> None:
    messages = set()
    for name in ("one", "two"):
        (found,) = fetch([Request(str(tmp_path / name))], STORAGE, 1000)
        assert isinstance(found, RowError)
        messages.add(found.message)
    assert messages == {"the object does not exist"}


def test_members_of_two_archives_are_not_mixed_up(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("member", name)
    requests = [Request(f"zip://member::{tmp_path}/{name}.zip") for name in ("one", "two")]
    assert fetch(requests, STORAGE, 1000) == [b"one", b"two"]


@pytest.mark.parametrize("uri", ["dir://x", "generic://x", "reference://x", "jupyter://x", "nope://x"])
def test_a_scheme_that_no_store_here_has_is_a_bad_uri_with_a_stable_message(uri: str) -> None:
    (found,) = fetch([Request(uri)], STORAGE, max_bytes=100)
    assert isinstance(found, RowError)
    assert (found.code, found.message) == (ErrorCode.BAD_URI, "the URI does not lead to a file")


@pytest.mark.parametrize("scheme", ["", "file:", "file://", "local://"])
def test_a_pipe_is_refused_without_opening_it(scheme: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert fetch_one(Request(f"{scheme}{tmp_path}/pipe")) is ErrorCode.BAD_URI


@pytest.mark.parametrize("uri", ["file", "s3://bucket/key", "memory://key"])
def test_a_range_of_no_bytes_is_empty_wherever_it_is(uri: str, file: str) -> None:
    assert fetch_one(Request(file if uri == "file" else uri, 5, 0)) is ErrorCode.EMPTY
