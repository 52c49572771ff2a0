"""URIs: what they name, how they become absolute, and what messages show of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.storage.uris import (
    absolute,
    delta_uri,
    has_secret,
    is_relative,
    join,
    redacted,
    scheme,
    split,
    store_of,
    without_queries,
    without_query,
)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://lake/a", "s3"),
        ("S3://lake/a", "s3"),
        ("file:///a", "file"),
        ("memory://a", "memory"),
        ("zip://a::s3://lake/b.zip", "zip"),
        ("/a/b", "file"),
        ("a/b", "file"),
        ("shot:1.jpg", "file"),
        ("a/s3://b", "file"),
        ("C://x", "file"),
        ("file:/a", "file"),
        ("data:image/png;base64,AA", "data"),
        ("", "file"),
    ],
)
def test_the_scheme_of_a_uri(uri: str, expected: str) -> None:
    assert scheme(uri) == expected


def test_a_relative_path_is_resolved_here_and_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert absolute("a/b") == f"{tmp_path}/a/b"
    assert absolute("~/a") == "/home/someone/a"
    assert absolute("/a b%20") == "/a b%20"
    assert absolute("s3://lake/../a") == "s3://lake/../a"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://lake/a b?c", "s3://lake/a b?c"),
        ("https://me:secret@host:80/a.jpg?X-Amz-Signature=secret#x", "https://host:80/a.jpg"),
        ("http://[::1/a?secret", "http://[::1/a"),
        ("/a\n\x1b[2J\u202eb", r"/a\n\x1b[2J\u202eb"),
        ("/" + "a" * 300, "/" + "a" * 199 + "…"),
    ],
)
def test_what_is_shown_of_a_uri_is_one_line_without_secrets(uri: str, expected: str) -> None:
    assert redacted(uri) == expected


def test_a_file_uri_without_a_slash_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("file:a") == f"{tmp_path}/file:a"


def test_joining_puts_one_slash_between() -> None:
    assert join("s3://lake", "a", "b.json") == join("s3://lake/", "a", "b.json") == "s3://lake/a/b.json"
    assert join("/a") == "/a"


def test_a_home_folder_that_is_not_there_is_told() -> None:
    with pytest.raises(StorageError, match=r"~nobody-of-this-name.* does not exist"):
        absolute("~nobody-of-this-name/out")


@pytest.mark.parametrize(
    ("uri", "relative"),
    [("a/b", True), ("~/a", True), ("file:a", True), ("/a", False), ("file:/a", False), ("s3://lake", False)],
)
def test_a_relative_uri_means_another_file_in_another_folder(uri: str, relative: bool) -> None:
    assert is_relative(uri) is relative


@pytest.mark.parametrize(
    ("uri", "store"),
    [
        ("s3://lake/a/b", "s3://lake"),
        ("s3://lake/a::b", "s3://lake"),
        ("https://host:8080/a?x=::", "https://host:8080"),
        ("zip://a.jpg::s3://lake/b.zip", "s3://lake"),
    ],
)
def test_a_store_is_a_host_or_a_bucket(uri: str, store: str) -> None:
    assert store_of(uri) == store


def test_a_uri_is_split_into_bucket_and_key() -> None:
    assert split("s3://lake/a//b?c") == ("lake", "a//b?c")
    assert split("s3://lake") == ("lake", "")


def test_only_http_urls_lose_their_query() -> None:
    assert without_query("HTTPS://host/a.csv?sig=secret#x") == "HTTPS://host/a.csv"
    assert without_query("s3://lake/a?b#c") == "s3://lake/a?b#c"
    assert without_query("/a?b") == "/a?b"


def test_no_url_in_a_text_keeps_its_query() -> None:
    text = "cannot read 'https://host/a?sig=secret' and s3://lake/b?c: why?"
    assert without_queries(text) == "cannot read 'https://host/a' and s3://lake/b why?"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("git+https://token@host/a", True),
        ("https://host/a?x=1&Sig=abc", True),
        ("https://host/a?X-Amz-Signature=abc", True),
        ("https://host/a?version=1", False),
        ("me@host", False),
    ],
)
def test_a_password_or_signature_in_a_url_is_noticed(text: str, secret: bool) -> None:
    assert has_secret(text) is secret


def test_delta_gets_keys_percent_encoded_and_local_paths_as_they_are() -> None:
    assert delta_uri("s3://lake/a b#c/predictions") == "s3://lake/a%20b%23c/predictions"
    assert delta_uri("/a b#c") == "/a b#c"
    with pytest.raises(StorageError, match=r"s3://lake/100%.*percent sign"):
        delta_uri("s3://lake/100%")


def test_the_module_imports_no_client_of_a_store() -> None:
    script = (
        "import sys, pipeline.storage.uris; print({'fsspec', 'botocore', 'aiohttp', 'pydantic'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
