"""Commands, run in this process or in one of their own."""

import subprocess
import sys
from pathlib import Path

import pytest
import ray

from jobs import __main__ as cli


def lakelens(*words: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["lakelens", *map(str, words)])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def run_in_a_process(config: Path) -> subprocess.CompletedProcess[str]:
    address = ray.get_runtime_context().gcs_address
    return subprocess.run(
        [sys.executable, "-m", "jobs", "run", config, "--address", address],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
