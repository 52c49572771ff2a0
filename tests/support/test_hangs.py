"""A test that hangs ends alone, and is named; those beside it and behind it go on."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
HANGING = """
import ctypes, subprocess, time
from tests.support import orphans

def test_before(): pass
def test_sleeping(): time.sleep(1000)
def test_in_c_code():
    child = subprocess.Popen(["sleep", "1000"], preexec_fn=orphans.none_left)
    with open("pid", "w") as file:
        file.write(str(child.pid))
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):  # a deadlock, with Python's own lock held: no signal reaches it
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)
def test_behind(): pass
"""


@pytest.mark.slow
def test_a_test_that_hangs_is_ended_and_named_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "test_hanging.py").write_text(HANGING)
    (tmp_path / "test_beside.py").write_text("def test_beside(): pass")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "-n",
        "2",
        "--dist",
        "loadscope",
        "-p",
        "tests.support.sharing",
    ]
    command += ["-c", str(ROOT / "pyproject.toml"), "--timeout", "3", "-o", "faulthandler_timeout=6"]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    said = done.stdout
    assert done.returncode == 1, said
    assert "3 passed" in said
    assert "2 failed" in said
    assert "Failed: Timeout (>3.0s)" in said
    assert "crashed while running 'test_hanging.py::test_in_c_code'" in said
    assert "test_in_c_code" in done.stderr  # where it hung
    child = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
