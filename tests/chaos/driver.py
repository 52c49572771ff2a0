"""One `lakelens` command as a process, seen from outside: what it says, and how it ends. It can be killed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DUMP_S = 10.0

_ALL = re.compile(r"^([\d,]+) / \1 images", re.MULTILINE)


class Driver:
    """A running command; its output goes to a file."""

    def __init__(self, arguments: Sequence[str], log: Path, role: str = "run") -> None:
        self.role, self.log, self.started = role, log, time.monotonic()
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jobs", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=ROOT,
                env={**os.environ, "PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"},
            )

    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def suspend(self) -> None:
        """SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT; nothing to one that is not suspended."""
        self._process.send_signal(signal.SIGCONT)

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code; None if it has not ended by then."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def abort(self) -> None:
        """Make it write the stacks of all its threads into its log, and end."""
        self._process.send_signal(signal.SIGABRT)
        if self.wait(DUMP_S) is None:
            self.kill()

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def saw_all(self) -> bool:
        """Its progress line says that every row is predicted, and mostly that it is committed, too."""
        return _ALL.search(self.said) is not None

    @property
    def had_nothing_to_do(self) -> bool:
        return "Nothing to do" in self.said

    @property
    def sentence(self) -> str:
        """Its error, or what it said last."""
        lines = [line for line in self.said.splitlines() if line.strip()]
        return [*lines, *(line for line in lines if line.startswith("error:"))][-1][:300] if lines else "nothing"
