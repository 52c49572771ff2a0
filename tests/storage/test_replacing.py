"""Files that are written bit by bit replace an object at their end, or not at all."""

import errno
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.storage.filesystems import Storage

STORAGE = Storage()


def write(uri: str, data: bytes, error: Exception | None = None) -> None:
    """Write an object, or begin to."""
    with STORAGE.replacing(uri) as file:
        file.write_bytes(data)
        if error is not None:
            raise error


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    with STORAGE.replacing(str(tmp_path / "new" / "a")) as file:
        file.write_bytes(b"data")
        assert not (tmp_path / "new" / "a").exists()
    assert (tmp_path / "new" / "a").read_bytes() == b"data"
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    uri = str(tmp_path / "a")
    write(uri, b"old")
    with pytest.raises(ZeroDivisionError):
        write(uri, b"new", ZeroDivisionError())
    assert Path(uri).read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [Path(uri)]


@pytest.mark.parametrize("uri", ["{}/a", "memory://folder/a"])
def test_a_full_disk_is_one_sentence(uri: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"(?i)no space left on device"):
        write(uri.format(tmp_path), b"", OSError(errno.ENOSPC, "No space left on device"))


def test_an_object_of_another_store_is_uploaded() -> None:
    write("memory://folder/b", b"data")
    assert STORAGE.read("memory://folder/b") == b"data"
