"""Daft, in an environment of its own: it needs an older pyarrow."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PYTHON = Path(__file__).parents[1] / ".peers" / "bin" / "python"
"""The environment that `make bench` sets up."""


def feed(uris: Sequence[str], size: int) -> dict[str, float]:
    """Measure Daft; return nothing if it is not installed."""
    if not PYTHON.exists():
        return {}
    script = Path(__file__).with_name("daft_process.py")
    command = [str(PYTHON), str(script), str(size)]
    done = subprocess.run(command, input=json.dumps(uris), capture_output=True, text=True, check=True)  # noqa: S603
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"feed: Daft": float(found["images_per_s"])}
