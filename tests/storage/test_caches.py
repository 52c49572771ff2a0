"""Files that can be made again find a folder, whatever the user's home is like."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.storage import caches


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without a home folder; gives where temporary files go."""
    for name in ("LAKELENS_CACHE", "XDG_CACHE_HOME", "HF_HOME", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def test_the_users_own_cache_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert caches.cache_folder() == tmp_path / ".cache/lakelens"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert caches.cache_folder() == tmp_path / "xdg/lakelens"
    monkeypatch.setenv("LAKELENS_CACHE", str(tmp_path / "given"))
    assert caches.cache_folder() == tmp_path / "given"
    caches.set_environment()
    assert os.environ["HF_HOME"] == ""


def test_a_relative_cache_of_xdg_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "some/where")
    assert caches.cache_folder() == tmp_path / ".cache/lakelens"


def test_without_a_home_that_can_be_written_temporary_files_of_the_user_are_used(nobody: Path) -> None:
    found = caches.cache_folder()
    assert found == nobody / f"lakelens-cache-{os.getuid()}" == caches.cache_folder()
    assert found.stat().st_mode & 0o777 == 0o700
    caches.set_environment()
    assert Path(os.environ["HF_HOME"]).parent == Path(os.environ["TRITON_CACHE_DIR"]).parent == nobody


def test_a_user_that_the_system_does_not_know_has_no_home(monkeypatch: pytest.MonkeyPatch, nobody: Path) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 54_321)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for an id that is in no list of users
    assert caches.home() is None
    assert caches.temporary("cache").name.startswith("lakelens-cache-54321")
    monkeypatch.setenv("HOME", "relative")
    assert caches.home() is None
    caches.set_environment()
    assert Path(os.environ["HOME"]).name.startswith("lakelens-home-54321")


def test_a_cache_that_an_image_brought_is_left_to_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".cache/huggingface").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(caches, "is_writable", lambda folder: False)
    caches.set_environment()
    assert os.environ["HF_HOME"] == ""
    assert os.environ["TRITON_CACHE_DIR"]


@pytest.mark.parametrize("kind", ["link", "theirs"])
def test_a_name_that_another_user_took_first_is_not_used(
    nobody: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    taken = nobody / f"lakelens-cache-{os.getuid()}"
    if kind == "link":
        taken.symlink_to(nobody)
    else:
        taken.mkdir()
        os.chown(taken, 54_321, 54_321)
    found = caches.cache_folder()
    assert found != taken
    assert found.parent == nobody
    assert found.stat().st_mode & 0o777 == 0o700


def test_a_cache_folder_that_is_given_and_cannot_be_written_is_one_sentence() -> None:
    with (
        pytest.raises(StorageError, match=r"^Cannot write to the cache folder /dev/null/cache: .*LAKELENS_CACHE"),
        caches.atomic_folder(Path("/dev/null/cache/model")),
    ):
        raise AssertionError


def test_importing_it_leaves_the_environment_as_it_is() -> None:
    script = "import os; before = {**os.environ}; import pipeline.storage.caches; assert {**os.environ} == before"
    subprocess.run([sys.executable, "-c", script], check=True)
