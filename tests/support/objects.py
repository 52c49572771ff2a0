"""One object in a bucket, and readers of it."""

import pytest

from pipeline.storage import s3_objects as objects_module
from pipeline.storage.filesystems import Storage
from pipeline.storage.s3_objects import Objects

BUCKET = "objects"
DATA = bytes(range(256)) * 4


def uri(key: str) -> str:
    return f"s3://{BUCKET}/{key}"


def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that obstore is asked for from now on."""
    keys: list[str] = []
    get = objects_module.obstore.get
    monkeypatch.setattr(
        objects_module.obstore, "get", lambda store, key, **how: keys.append(key) or get(store, key, **how)
    )
    return keys


def never() -> bytes:
    raise AssertionError("this is for obstore to read")


def proved(storage: Storage | None = None) -> Objects:
    """One that has read from the bucket."""
    found = Objects((storage or Storage()).config)
    assert found.read(uri("there"), 0, 9999, never) == DATA
    return found
