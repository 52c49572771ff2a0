"""A store behind a private authority is opened by all three of its clients."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from pipeline.config import StorageConfig
from pipeline.errors import StorageError
from pipeline.storage import certificates
from pipeline.storage.filesystems import Storage
from pipeline.storage.s3_objects import Objects
from tests.support import seaweed, tls


@pytest.fixture
def secured(s3: seaweed.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tls.Secured]:
    s3.filesystem().makedirs("secured", exist_ok=True)
    s3.filesystem().pipe_file("secured/image.jpg", b"an image")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in (certificates.VARIABLE, "SSL_CERT_DIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    with tls.before(urlsplit(s3.endpoint_url).port or 0, tmp_path / "tls") as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
        yield found


def test_the_certificates_of_aws_clients_are_those_of_delta_and_obstore(
    secured: tls.Secured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(secured.ca_file))
    storage, uri = Storage(), f"s3://secured/{tmp_path.name}"
    assert storage.read("s3://secured/image.jpg") == b"an image"
    options = storage.delta_options(uri)
    write_deltalake(uri, pa.table({"a": [1]}), storage_options=options)
    assert DeltaTable(uri, storage_options=options).version() == 0
    assert Objects(StorageConfig()).read("s3://secured/image.jpg", 0, 99, not_asked) == b"an image"


def not_asked() -> bytes:
    raise AssertionError("s3fs was asked")


def test_without_its_certificate_the_store_is_not_trusted(secured: tls.Secured) -> None:
    with pytest.raises(StorageError, match="Cannot open s3://secured"):
        Storage().impatient().read("s3://secured/image.jpg")


@pytest.mark.parametrize("theirs", [False, True])
def test_the_certificates_of_the_system_or_of_the_users_choice_stay_trusted(
    secured: tls.Secured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, theirs: bool
) -> None:
    if theirs:
        (tmp_path / "own.pem").write_text("their own")
        monkeypatch.setenv(certificates.VARIABLE, str(tmp_path / "own.pem"))
    certificates.trust(str(secured.ca_file))
    made = os.environ[certificates.VARIABLE]
    text = Path(made).read_text()
    assert text.endswith(secured.ca_file.read_text())
    assert text.startswith("their own") if theirs else text.count("BEGIN CERTIFICATE") > 50
    certificates.trust(str(secured.ca_file))
    assert os.environ[certificates.VARIABLE] == made


def test_certificates_that_are_not_there_are_one_sentence(
    secured: tls.Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such.pem")
    with pytest.raises(StorageError, match=r"/no/such\.pem.*AWS_CA_BUNDLE"):
        Storage().delta_options("s3://secured/table")


def test_a_temporary_folder_that_cannot_be_written_is_not_blamed_on_the_certificates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "own.pem").write_text("their own")
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(StorageError, match=f"{tmp_path}/file.*TMPDIR") as raised:
        certificates.trust(str(tmp_path / "own.pem"))
    assert "AWS_CA_BUNDLE" not in str(raised.value)
