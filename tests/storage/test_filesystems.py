"""Files by their URIs, and files on local disk that are there at once or not at all."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import botocore.exceptions as boto
import pytest

from pipeline.config import StorageConfig
from pipeline.errors import ErrorCode, StorageError
from pipeline.storage.error_codes import classify
from pipeline.storage.filesystems import Storage, failure
from pipeline.storage.uris import absolute, join

STORAGE = Storage()


def answer(status: int, code: str = "") -> boto.ClientError:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(response, "GetObject")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["file:{}", "file://{}", "file://localhost{}", "FILE:{}"])
@pytest.mark.parametrize("name", ["plain", "my photo", "100%", "a%20b", "a::b", "grün#?", "caf\udce9"])
def test_a_file_uri_leads_to_its_file_as_it_stands_or_percent_encoded(
    form: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    encoded = path.as_uri().removeprefix("file://")
    for written in (str(path), encoded):
        assert STORAGE.read(form.format(written)) == b"x"
        assert absolute(form.format(written)) == str(path)


def test_of_a_file_uri_the_name_as_it_stands_comes_first(tmp_path: Path) -> None:
    (tmp_path / "a%20b").write_bytes(b"as it stands")
    (tmp_path / "a b").write_bytes(b"decoded")
    assert STORAGE.read(f"file:{tmp_path}/a%20b") == b"as it stands"
    STORAGE.write(f"file://{tmp_path}/new%20folder/a", b"x")
    assert (tmp_path / "new%20folder" / "a").exists()


def test_no_sentence_shows_a_signature() -> None:
    for error in (FileNotFoundError(), PermissionError(), TimeoutError()):
        assert "secret" not in str(failure(error, "https://bucket/m.parquet?X-Amz-Signature=secret"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    uri = join(str(tmp_path), "new", "deep folder", "a%20b")
    STORAGE.write(uri, b"one")
    assert STORAGE.read(uri) == b"one"
    STORAGE.write(uri, b"two, longer")
    assert STORAGE.read(uri) == b"two, longer"
    assert STORAGE.read(f"file://{uri}") == b"two, longer"


def test_a_missing_object_is_none(tmp_path: Path) -> None:
    assert STORAGE.read(str(tmp_path / "no" / "where")) is None


def test_a_folder_is_no_object(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=rf"Cannot open {tmp_path}: is a directory\.$"):
        STORAGE.read(str(tmp_path))


def test_json_is_written_for_people(tmp_path: Path) -> None:
    STORAGE.write_json(str(tmp_path / "a.json"), {"name": "grün", "rows": 1})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "name": "grün",\n  "rows": 1\n}\n'


def test_a_write_replaces_a_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a"
    STORAGE.write(str(path), b"old")
    with path.open("rb") as reader:
        STORAGE.write(str(path), b"new")
        assert reader.read() == b"old"  # who reads already goes on with the old bytes
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_creating_writes_once_and_never_over_a_file(tmp_path: Path) -> None:
    uri = str(tmp_path / "sub" / "a")
    assert STORAGE.create(uri, b"first") is True
    assert STORAGE.create(uri, b"second") is False
    assert STORAGE.read(uri) == b"first"
    assert os.listdir(tmp_path / "sub") == ["a"]


def test_of_many_creators_one_wins_and_its_bytes_are_whole(tmp_path: Path) -> None:
    uri = str(tmp_path / "a")
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda n: STORAGE.create(uri, str(n).encode() * 1000), range(16)))
    assert won.count(True) == 1
    assert STORAGE.read(uri) == str(won.index(True)).encode() * 1000
    assert os.listdir(tmp_path) == ["a"]


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="is a directory"):
        STORAGE.write(str(tmp_path / "folder"), b"x")
    assert os.listdir(tmp_path) == ["folder"]


def test_a_file_in_the_way_of_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"^Cannot open .*/file/a: (not a directory|file exists)\.$"):
        STORAGE.write(str(tmp_path / "file" / "a"), b"x")


def test_creating_below_a_file_is_not_taken_for_an_object_that_exists(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        STORAGE.create(str(tmp_path / "file" / "a"), b"x")


@pytest.mark.parametrize("uri", ["nosuchscheme://a/b", "gs://lake/a"])
def test_a_store_that_cannot_be_opened_is_one_sentence(uri: str) -> None:
    with pytest.raises(StorageError, match=f"^Cannot open {uri}: .*"):
        STORAGE.filesystem(uri)


def test_local_tables_need_no_options_and_get_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert STORAGE.delta_options("/a/b") == {}
    assert STORAGE.delta_options("file:///a/b") == {}


def test_delta_gets_what_s3_needs_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    storage = Storage(StorageConfig(endpoint_url="http://127.0.0.1:1", region="eu-1"))
    assert storage.delta_options("s3://lake/a") == {
        **{"AWS_REGION": "eu-1", "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ALLOW_HTTP": "true"},
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        **{"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"},
    }


def test_an_anonymous_store_gets_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    options = Storage(StorageConfig(anonymous=True)).delta_options("s3://lake/a")
    assert options == {"AWS_REGION": "us-east-1", "AWS_SKIP_SIGNATURE": "true"}


def test_a_storage_travels_to_workers_without_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    storage = Storage(StorageConfig(endpoint_url="http://127.0.0.1:1"))
    assert pickle.loads(pickle.dumps(storage)) == storage
    assert b"s3cret" not in pickle.dumps(storage)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FileNotFoundError(), ErrorCode.NOT_FOUND),
        (NotADirectoryError(), ErrorCode.NOT_FOUND),
        (answer(404, "NoSuchKey"), ErrorCode.NOT_FOUND),
        (answer(400, "NoSuchBucket"), ErrorCode.NO_SUCH_BUCKET),
        (PermissionError(), ErrorCode.ACCESS_DENIED),
        (boto.NoCredentialsError(), ErrorCode.ACCESS_DENIED),
        (answer(403, "AccessDenied"), ErrorCode.ACCESS_DENIED),
        (answer(401), ErrorCode.ACCESS_DENIED),
        (TimeoutError(), ErrorCode.TIMEOUT),
        (boto.ConnectTimeoutError(endpoint_url="x"), ErrorCode.TIMEOUT),
        (boto.ReadTimeoutError(endpoint_url="x"), ErrorCode.TIMEOUT),
        (aiohttp.ServerTimeoutError(), ErrorCode.TIMEOUT),
        (IsADirectoryError(), ErrorCode.BAD_URI),
        (ValueError("embedded null byte"), ErrorCode.BAD_URI),
        (boto.ParamValidationError(report="x"), ErrorCode.BAD_URI),
        (answer(416, "InvalidRange"), ErrorCode.EMPTY),
        (answer(503, "SlowDown"), ErrorCode.UNAVAILABLE),
        (answer(500), ErrorCode.UNAVAILABLE),
        (boto.EndpointConnectionError(endpoint_url="x"), ErrorCode.UNAVAILABLE),
        (ConnectionResetError(), ErrorCode.UNAVAILABLE),
        (RuntimeError("whatever"), ErrorCode.UNAVAILABLE),
    ],
    ids=repr,
)
def test_what_a_store_raises_has_a_code(error: BaseException, code: ErrorCode) -> None:
    assert classify(error) is code


def test_the_answer_of_the_store_counts_even_behind_another_exception() -> None:
    wrapped = OSError("s3fs says so")
    wrapped.__cause__ = answer(403, "AccessDenied")
    assert classify(wrapped) is ErrorCode.ACCESS_DENIED


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(2, "No such file or directory", "/a"), answer(403), TimeoutError(), RuntimeError("a\nb")],
    ids=repr,
)
def test_a_failure_is_one_sentence_about_the_uri(error: BaseException) -> None:
    sentence = str(failure(error, "s3://lake/a"))
    assert sentence.startswith("Cannot open s3://lake/a: ")
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_a_failure_keeps_the_systems_reason_for_local_files() -> None:
    error = OSError(28, "No space left on device")
    assert str(failure(error, "/a")) == "Cannot open /a: no space left on device."


def test_a_failure_stays_itself() -> None:
    error = StorageError("said already.")
    assert failure(error, "/a") is error


def test_the_endpoint_of_an_aws_profile_is_the_one_of_fsspec_and_of_delta(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("[profile lake]\nendpoint_url = http://127.0.0.1:9999\nregion = eu-west-3\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lake")
    options = STORAGE.delta_options("s3://bucket/table")
    assert options["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9999"
    assert options["AWS_REGION"] == "eu-west-3"
    assert STORAGE.filesystem("s3://bucket/x")[0].endpoint_url == "http://127.0.0.1:9999"


@pytest.mark.parametrize(
    ("name", "value", "endpoint"),
    [
        ("AWS_REGION", "eu-west-3", None),
        ("AWS_REGION", "cn-north-1", "https://s3.cn-north-1.amazonaws.com.cn"),
        ("AWS_USE_FIPS_ENDPOINT", "true", "https://s3-fips.us-east-1.amazonaws.com"),
        ("AWS_ENDPOINT_URL", "https://bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com", "the same"),
    ],
)
def test_delta_is_told_of_endpoints_that_it_would_not_find(
    name: str, value: str, endpoint: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    expected = value if endpoint == "the same" else endpoint
    assert STORAGE.delta_options("s3://bucket/table").get("AWS_ENDPOINT_URL") == expected


def test_a_path_or_key_with_two_colons_is_itself(tmp_path: Path) -> None:
    (tmp_path / "a::b").write_bytes(b"x")
    assert STORAGE.read(str(tmp_path / "a::b")) == b"x"
    assert STORAGE.filesystem("s3://bucket/a::b")[1] == "bucket/a::b"


def test_opening_a_store_is_cheap_enough_to_be_done_for_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    STORAGE.filesystem("s3://bucket/first")
    made: list[object] = []
    monkeypatch.setattr("botocore.session.get_session", lambda: made.append(1))
    for number in range(100):
        STORAGE.filesystem(f"s3://bucket/{number}")
    assert made == []


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [("AWS_PROFILE", "no-such-profile", "no-such-profile"), ("AWS_ENDPOINT_URL", "http://a b", "http://a b")],
)
def test_aws_settings_that_cannot_be_used_are_named(
    variable: str, value: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    for use in (STORAGE.filesystem, STORAGE.delta_options):
        with pytest.raises(StorageError, match=named) as raised:
            use("s3://lake/a")
        assert "package" not in str(raised.value)


def test_a_missing_home_folder_is_not_taken_for_a_missing_package() -> None:
    with pytest.raises(StorageError, match="home folder") as raised:
        STORAGE.filesystem("~nobody-of-this-name/a")
    assert "package" not in str(raised.value)


def test_a_missing_package_of_a_store_is_named() -> None:
    with pytest.raises(StorageError, match="gcsfs"):
        STORAGE.filesystem("gs://lake/a")
