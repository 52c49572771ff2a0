"""What happens in a run as JSON lines on stderr, for collectors of logs. Text is the default; see `console`."""

import json
import os
import sys
from datetime import UTC, datetime
from typing import Any

VARIABLE = "LAKELENS_LOG_FORMAT"
FORMATS = ("text", "json")

_run_id: str | None = None


def as_json() -> bool:
    """Whether lines are JSON: by `--log-format`, else by $LAKELENS_LOG_FORMAT."""
    return os.environ.get(VARIABLE) == "json"


def of_run(run_id: str) -> None:
    """The run that the next events belong to."""
    global _run_id
    _run_id = run_id


def event(name: str, level: str = "info", **facts: Any) -> None:
    """One object: time (UTC), level, event, run_id (null before there is one), and what belongs to the event."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": now, "level": level, "event": name, "run_id": _run_id, **facts}
    sys.stderr.write(json.dumps(line) + "\n")  # in one piece: several threads tell things
    sys.stderr.flush()
