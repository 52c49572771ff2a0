"""A sign of life of the run that owns an output: `runs/<run_id>/heartbeat.json`, written every few seconds.

It tells a run that still works from one that was killed. It decides nothing: only the table's epoch keeps two runs
apart, and this only keeps the later one from starting.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import LakeLensError, StorageError
from pipeline.storage import Storage, join

FILE = "heartbeat.json"
INTERVAL_S = 5.0
SILENCE_S = 6 * INTERVAL_S
"""A run whose heartbeat stays the same for so long is dead: longer than a store's own retries take."""
CLOCKS_S = 600.0
"""How far apart the clocks of two machines may be: a heartbeat that is older needs no watching."""
POLL_S = 1.0


class Heartbeat:
    """This run's sign of life; a thread keeps it going until it is stopped."""

    def __init__(self, folder: str, run_id: str, storage: Storage) -> None:
        """Write the first one. Raises: StorageError, also for a store that cannot keep two runs apart."""
        self._uri, self._storage = join(folder, FILE), storage
        self._document: dict[str, Any] = {"run_id": run_id, "host": socket.gethostname(), "process": _process()}
        self._stopped = threading.Event()
        self._require_conditional_writes()
        self._write("running")
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")
        self._thread.start()

    def note(self, **facts: Any) -> None:
        """What the next heartbeats say besides."""
        self._document |= facts

    def stop(self) -> None:
        """Say that the run has ended, as far as the store lets it be said."""
        self._end()
        with suppress(LakeLensError):
            self._write("ended")

    def discard(self) -> None:
        """Leave nothing behind of a run that owns nothing."""
        self._end()
        with suppress(LakeLensError):
            self._storage.delete(self._uri)

    def _end(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _require_conditional_writes(self) -> None:
        """Two runs are kept apart by `If-None-Match`, on the table's log: see that the store honours it."""
        self._storage.create(self._uri, b"{}")
        if self._storage.create(self._uri, b"{}"):
            raise StorageError(
                f"Cannot write to {self._uri}: its store ignores conditional writes (If-None-Match), which keep "
                "two runs from overwriting each other's commits; use another store for output.path."
            )

    def _beat(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            with suppress(LakeLensError):  # a store that fails now and then does not end a run
                self._write("running")

    def _write(self, status: str) -> None:
        now = {"status": status, "at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        self._storage.write_json(self._uri, self._document | now)


@dataclass(frozen=True)
class Sign:
    """What the heartbeat of a run says. `document` is empty if there is none."""

    document: dict[str, Any]

    @property
    def is_running(self) -> bool:
        """Whether it does not say that the run has ended."""
        return self.document.get("status") == "running"

    @property
    def described(self) -> str:
        """The run, for messages."""
        pid = (self.document.get("process") or {}).get("pid")
        where = f"{self.document.get('host')}, process {pid}"
        return f"{self.document.get('run_id')} ({where}; last heard of at {self.document.get('at')})"


def read(folder: str, storage: Storage) -> Sign:
    """The heartbeat in a run's folder. Raises: StorageError."""
    data = storage.read(join(folder, FILE))
    with suppress(ValueError):
        found = json.loads(data or b"{}")
        return Sign(found if isinstance(found, dict) else {})
    return Sign({})


def is_alive(folder: str, storage: Storage, waiting: Callable[[Sign], None] = lambda sign: None) -> bool:
    """Whether the run with this folder still works.

    On the same machine its process tells. Elsewhere its heartbeat is watched for up to `SILENCE_S`, after
    `waiting` was called once. Raises: StorageError.
    """
    first = read(folder, storage)
    if not first.is_running:
        return False
    here = _is_here(first.document.get("process") or {})
    if here is not None:
        return here
    if _age_s(first) > CLOCKS_S:
        return False
    waiting(first)
    deadline = time.monotonic() + SILENCE_S
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        now = read(folder, storage)
        if now != first:
            return now.is_running
    return False


def _age_s(sign: Sign) -> float:
    try:
        return abs((datetime.now(UTC) - datetime.fromisoformat(sign.document["at"])).total_seconds())
    except (KeyError, TypeError, ValueError):
        return float("inf")


def _process() -> dict[str, Any]:
    """This process, such that another one on this machine can tell whether it still runs (Linux only)."""
    with suppress(OSError):
        return {**_machine(), "pid": os.getpid(), "started": _started(os.getpid())}
    return {"pid": os.getpid()}


def _machine() -> dict[str, str]:
    """This kernel since it was booted, and this namespace of process ids: a container has its own."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return {"boot": boot, "pids": os.readlink("/proc/self/ns/pid")}


def _is_here(process: dict[str, Any]) -> bool | None:
    """Whether a process of this machine runs; None if it is of another one."""
    try:
        if _machine() != {key: process.get(key) for key in ("boot", "pids")}:
            return None
    except OSError:
        return None
    started = _started(int(process["pid"]))
    return started is not None and started == process.get("started")


def _started(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None if there is none or it is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()  # proc(5): the name before it may hold anything
    return None if state in ("Z", "X") else int(fields[18])
