"""Events of a run as JSON lines on stderr, for log collectors. The default is text, see `console`."""

import json
import os
import sys
from datetime import UTC, datetime
from typing import Any

VARIABLE = "LAKELENS_LOG_FORMAT"
FORMATS = ("text", "json")

_run_id: str | None = None


def as_json() -> bool:
    """Tell whether to write JSON: `--log-format` sets $LAKELENS_LOG_FORMAT, which decides."""
    return os.environ.get(VARIABLE) == "json"


def of_run(run_id: str) -> None:
    """Set the run that the next events belong to."""
    global _run_id
    _run_id = run_id


def event(name: str, level: str = "info", **facts: Any) -> None:
    """Write one object: time (UTC), level, event, run_id (null before there is one), and the facts."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": now, "level": level, "event": name, "run_id": _run_id, **facts}
    sys.stderr.write(json.dumps(line) + "\n")  # one call, since several threads write
    sys.stderr.flush()
