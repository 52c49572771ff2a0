"""Credentials and signatures of S3 objects that obstore reads."""

import pytest
from botocore.credentials import ReadOnlyCredentials

from pipeline.config import StorageConfig
from pipeline.storage import aws, s3_objects as objects_module
from pipeline.storage.error_codes import RefusedError
from pipeline.storage.filesystems import Storage
from pipeline.storage.s3_objects import Objects
from tests.support import seaweed, web
from tests.support.objects import BUCKET, DATA, asked, never, proved, uri

pytestmark = pytest.mark.usefixtures("s3")


@pytest.fixture(scope="module", autouse=True)
def _bucket(s3_server: seaweed.S3Server) -> None:
    fs = s3_server.filesystem()
    fs.makedirs(BUCKET, exist_ok=True)
    fs.pipe_file(f"{BUCKET}/there", DATA)


class Renewed:
    """Credentials like botocore's that renew themselves: each is good for one time."""

    def __init__(self) -> None:
        self.given = 0

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        self.given += 1
        key = seaweed.ACCESS_KEY if self.given != 2 else "expired"
        return ReadOnlyCredentials(key, seaweed.SECRET_KEY, None)


def test_credentials_are_asked_for_again_when_they_may_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = Renewed()
    monkeypatch.setattr(aws, "credentials", lambda config: credentials)
    monkeypatch.setattr(objects_module, "CREDENTIALS_LAST", objects_module.timedelta(0))
    found = proved()
    with pytest.raises(RefusedError, match="InvalidAccessKeyId"):
        found.read(uri("there"), 0, 9999, never)
    assert found.read(uri("there"), 0, 9999, never) == DATA
    assert credentials.given >= 3


def test_without_credentials_nobody_else_is_asked_for_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """obstore would look for a machine's role, and wait."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    keys = asked(monkeypatch)
    assert Objects(StorageConfig()).read(uri("there"), 0, 9999, lambda: b"by s3fs") == b"by s3fs"
    assert keys == []


def test_nothing_is_signed_for_a_store_that_is_read_anonymously() -> None:
    with web.serving() as server:
        public = Storage(StorageConfig(endpoint_url=server.url, anonymous=True))
        assert Objects(public.config).read("s3://ranges/x", 5, 9, never) == web.BODY[5:9]
        assert server.signed == 0
        assert Objects(StorageConfig(endpoint_url=server.url)).read("s3://ranges/x", 0, 1, never)
        assert server.signed == 1


def test_credentials_that_cannot_be_renewed_are_for_s3fs_to_complain_of(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = Renewed()
    monkeypatch.setattr(aws, "credentials", lambda config: credentials)
    monkeypatch.setattr(objects_module, "CREDENTIALS_LAST", objects_module.timedelta(0))
    found = proved()
    monkeypatch.setattr(Renewed, "get_frozen_credentials", lambda self: 1 / 0)
    assert found.read(uri("there"), 0, 9, lambda: b"by s3fs") == b"by s3fs"
