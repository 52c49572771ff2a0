"""A run that works is told from one that was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StorageError
from pipeline.output import heartbeat
from pipeline.output.heartbeat import Heartbeat, is_alive
from pipeline.storage.filesystems import Storage
from tests.support.making import STORAGE


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"INTERVAL_S": 0.05, "SILENCE_S": 0.5, "POLL_S": 0.02}.items():
        monkeypatch.setattr(heartbeat, name, seconds)


def document(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "heartbeat.json").read_text()))


def pretend(folder: Path, **changes: Any) -> None:
    """Change what a heartbeat says."""
    (folder / "heartbeat.json").write_text(json.dumps(document(folder) | changes))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """The folder of a run on another machine: this process, under another kernel's name."""
    elsewhere = heartbeat.Process(boot="another", pids="another", pid=os.getpid(), started=1)
    with Heartbeat(str(tmp_path), "one", STORAGE, elsewhere):
        yield tmp_path


def test_a_run_is_alive_from_its_first_heartbeat_to_its_last(tmp_path: Path) -> None:
    assert not is_alive(str(tmp_path), STORAGE)
    beating = Heartbeat(str(tmp_path), "one", STORAGE)
    assert is_alive(str(tmp_path), STORAGE)
    beating.stop()
    assert not is_alive(str(tmp_path), STORAGE)
    assert document(tmp_path)["status"] == "ended"


def test_a_heartbeat_goes_on_and_can_be_taken_back(tmp_path: Path) -> None:
    beating = Heartbeat(str(tmp_path), "one", STORAGE)
    first = document(tmp_path)["at"]
    time.sleep(0.3)
    assert document(tmp_path)["at"] > first
    beating.discard()
    assert not (tmp_path / "heartbeat.json").exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_killed_run_on_this_machine_is_dead_at_once_and_a_suspended_one_is_not(tmp_path: Path) -> None:
    script = "import sys, time; from pipeline.output.heartbeat import Heartbeat\n"
    script += "from pipeline.storage.filesystems import Storage\n"
    script += f"Heartbeat({str(tmp_path)!r}, 'one', Storage()); print('ready', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.7)
        assert is_alive(str(tmp_path), STORAGE)
        process.kill()
        deadline = time.monotonic() + 10
        while is_alive(str(tmp_path), STORAGE) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not is_alive(str(tmp_path), STORAGE)  # also while it is a zombie
    pretend(tmp_path, process=document(tmp_path)["process"] | {"pid": os.getpid()})
    assert not is_alive(str(tmp_path), STORAGE)  # its number belongs to a younger process


def test_a_run_elsewhere_is_watched_until_it_beats(elsewhere: Path) -> None:
    waited: list[str] = []
    assert is_alive(str(elsewhere), STORAGE, lambda sign: waited.append(sign.described))
    assert len(waited) == 1
    assert waited[0].startswith("one (")


def test_a_run_elsewhere_that_stays_silent_is_dead(elsewhere: Path, tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.mkdir()
    (silent / "heartbeat.json").write_text((elsewhere / "heartbeat.json").read_text())
    started = time.monotonic()
    assert not is_alive(str(silent), STORAGE)
    assert time.monotonic() - started > 0.4


@pytest.mark.parametrize("at", ["2020-01-01T00:00:00+00:00", "yesterday", None])
def test_a_heartbeat_of_long_ago_needs_no_watching(elsewhere: Path, tmp_path: Path, at: str | None) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "heartbeat.json").write_text(json.dumps(document(elsewhere) | {"at": at}))
    assert not is_alive(str(old), STORAGE, lambda sign: pytest.fail("it was watched"))


def test_a_heartbeat_that_says_nothing_is_none(tmp_path: Path) -> None:
    (tmp_path / "heartbeat.json").write_text("{}")
    assert not is_alive(str(tmp_path), STORAGE)


@pytest.mark.parametrize("text", ["", "no json", "[1]", '{"process": 3}', '{"run_id": 7}'])
def test_a_damaged_heartbeat_is_one_sentence_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "heartbeat.json").write_text(text)
    with pytest.raises(
        StorageError, match=rf"^{tmp_path}/heartbeat\.json is damaged: .*; delete it if that run has ended\.$"
    ):
        is_alive(str(tmp_path), STORAGE)


def test_what_a_newer_version_says_in_a_heartbeat_is_kept(tmp_path: Path) -> None:
    with Heartbeat(str(tmp_path), "one", STORAGE):
        assert list(document(tmp_path)) == ["run_id", "host", "process", "status", "at"]
    (tmp_path / "heartbeat.json").write_text(json.dumps(document(tmp_path) | {"mood": "good"}))
    assert heartbeat.read(str(tmp_path), STORAGE).model_dump()["mood"] == "good"


class Careless(Storage):
    """A store that ignores If-None-Match."""

    def create(self, uri: str, data: bytes) -> bool:
        self.write(uri, data)
        return True


def test_a_store_that_ignores_conditional_writes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"heartbeat\.json.*If-None-Match"):
        Heartbeat(str(tmp_path), "one", Careless())
