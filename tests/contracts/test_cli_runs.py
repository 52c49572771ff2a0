"""Runs, as a person starts, watches and interrupts them."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from jobs import console
from pipeline.planning.account import Account, Counts, Progress
from tests.support import lakes
from tests.support.commands import run_in_a_process


@pytest.mark.slow
@pytest.mark.usefixtures("local_cluster")
def test_run_shows_plain_lines_without_a_terminal_and_a_second_run_says_there_is_nothing_to_do(
    config_file: Path,
) -> None:
    first = run_in_a_process(config_file)
    assert first.returncode == 0, first.stderr
    assert "3 / 3 images" in first.stderr
    assert "0 errors" in first.stderr
    assert "\x1b" not in first.stdout + first.stderr
    assert first.stdout.splitlines()[:2] == ["dataset  input  ok", "images       3   3"]
    assert all(" / 3 images" in line for line in first.stderr.splitlines())  # nothing of Ray's comes through

    started = time.monotonic()
    second = run_in_a_process(config_file)
    assert time.monotonic() - started < 10
    assert second.returncode == 0
    assert second.stdout.startswith("Nothing to do: ")
    assert second.stderr == ""


def test_the_time_to_go_may_be_longer_than_a_day(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "PLAIN_INTERVAL_S", 0.0)
    account = Account({"d": Counts(input=109_000)})
    with console.progress_line() as show:
        for elapsed_s, predicted in ((1, 500), (1001, 1500)):
            show(Progress(109_500, predicted, account, elapsed_s))
    assert "1.0 images/s  ETA 30:00:00" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("local_cluster")
def test_an_interrupted_run_commits_what_it_has_and_exits_with_130(
    model: Path, config_file: Path, tmp_path: Path
) -> None:
    (path,) = lakes.folder_of_images(tmp_path / "one", 1)
    rows = [{"uri": str(path), "image_id": f"{i:06}"} for i in range(60_000)]
    manifest = lakes.write_manifest(tmp_path / "many.parquet", rows)
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "jobs", "run", config_file, "--address", address]
    process = subprocess.Popen(
        [*command, "--set", f"manifest.path={manifest}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "out" / "predictions" / "_delta_log"
    deadline = time.monotonic() + 120
    while not (log / f"{2:020}.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "stopping: " in err
    header, counts = (line.split() for line in out.splitlines()[:2])
    account = dict(zip(header[1:], (int(count.replace(",", "")) for count in counts[1:]), strict=True))
    assert account["left"] > 0
    assert account["ok"] == len(lakes.predictions(tmp_path / "out", "image_id")) == 60_000 - account["left"]
