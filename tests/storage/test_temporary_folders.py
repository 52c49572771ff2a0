"""Temporary folders go with their process, however it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.storage import temporary_folders

HOLD = """
from pipeline.storage import temporary_folders as scratch
with scratch.folder() as room:
    (room / "spilled").touch()
    print(room, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, for this process and its children."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(temporary_folders.tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def another() -> Iterator["subprocess.Popen[str]"]:
    """A process that has a folder."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD], text=True, **pipes) as process:  # type: ignore[call-overload]
        yield process
        process.kill()


def test_a_folder_is_gone_at_the_end_even_if_its_user_fails(temporary: Path) -> None:
    with pytest.raises(FileExistsError), temporary_folders.folder() as room:
        os.mkdir(room / "file", (room / "file").write_text("x"))
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_has_left_is_deleted_and_what_a_living_one_uses_is_not(
    another: "subprocess.Popen[str]",
) -> None:
    assert another.stdout is not None
    theirs = Path(another.stdout.readline().strip())
    with temporary_folders.folder() as ours:
        assert ours != theirs
        assert (theirs / "spilled").exists()
        another.send_signal(signal.SIGKILL)
        another.wait()
        with temporary_folders.folder():
            assert not theirs.exists()
            assert ours.exists()


def test_folders_of_other_programs_and_files_and_links_are_let_be(temporary: Path) -> None:
    outside = temporary / "outside"
    outside.mkdir()
    os.mkfifo(temporary / f"{temporary_folders.PREFIX}pipe")  # to open it would wait for ever
    (temporary / f"{temporary_folders.PREFIX}file").touch()
    (temporary / f"{temporary_folders.PREFIX}link").symlink_to(outside)
    before = set(os.listdir(temporary))
    with temporary_folders.folder():
        pass
    assert set(os.listdir(temporary)) == before


def test_folders_of_other_users_are_let_be(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (temporary / f"{temporary_folders.PREFIX}theirs").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: 12345)
        with temporary_folders.folder():
            assert (temporary / f"{temporary_folders.PREFIX}theirs").exists()
    with temporary_folders.folder():  # it was abandoned, by this one
        assert not (temporary / f"{temporary_folders.PREFIX}theirs").exists()


def test_a_folder_that_was_swept_away_before_it_was_locked_is_made_again(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    mkdtemp = temporary_folders.tempfile.mkdtemp

    def swept(**how: str) -> str:
        made.append(mkdtemp(**how))
        if len(made) == 1:
            os.rmdir(made[0])
        return made[-1]

    monkeypatch.setattr(temporary_folders.tempfile, "mkdtemp", swept)
    with temporary_folders.folder() as room:
        assert str(room) == made[1]
        assert room.exists()


def test_where_no_temporary_folder_can_be_made_it_is_one_sentence(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary_folders.tempfile, "tempdir", "/proc")
    with (
        pytest.raises(StorageError, match=r"^Cannot make a temporary folder in /proc: .* TMPDIR"),
        temporary_folders.folder(),
    ):
        raise AssertionError

    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(temporary_folders.tempfile, "gettempdir", none)
    with (
        pytest.raises(StorageError, match=r"^No folder for temporary files .* TMPDIR"),
        temporary_folders.folder(),
    ):
        raise AssertionError
