"""A sign of life of the run that owns an output: `runs/<run_id>/heartbeat.json`, written every few seconds.

It tells a run that still works from one that was killed. It decides nothing: only the table's epoch keeps two runs
apart, and this only keeps the later one from starting.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

from pipeline.errors import LakeLensError, StorageError
from pipeline.output.documents import Document, parsed
from pipeline.output.layout import RunFolder
from pipeline.storage.filesystems import Storage

INTERVAL_S = 5.0
SILENCE_S = 6 * INTERVAL_S
"""A run whose heartbeat stays the same for so long is dead: longer than a store's own retries take."""
CLOCKS_S = 600.0
"""How far apart the clocks of two machines may be: a heartbeat that is older needs no watching."""
POLL_S = 1.0


class Process(Document):
    """A process, such that another one on its machine can tell whether it still runs.

    `boot` is its kernel since it was booted, `pids` its namespace of process ids, `started` when it was started,
    in clock ticks since boot; only Linux tells.
    """

    boot: str | None = None
    pids: str | None = None
    pid: int | None = None
    started: int | None = None


class Sign(Document):
    """What the heartbeat of a run says; nothing, if there is none.

    `status` is running or ended; `at` is when that was written, as ISO 8601 in UTC.
    """

    run_id: str | None = None
    host: str | None = None
    process: Process = Process()
    status: str | None = None
    at: str | None = None

    @property
    def is_running(self) -> bool:
        """Whether it does not say that the run has ended."""
        return self.status == "running"

    @property
    def described(self) -> str:
        """The run, for messages."""
        return f"{self.run_id} ({self.host}, process {self.process.pid}; last heartbeat at {self.at})"


def read(folder: str, storage: Storage) -> Sign:
    """The heartbeat in a run's folder. Raises: StorageError, also for one that is damaged."""
    uri = RunFolder(folder).heartbeat
    data = storage.read(uri)
    return Sign() if data is None else parsed(Sign, data, uri, "delete it if that run has ended")


class Heartbeat:
    """This run's sign of life; a thread keeps it going until it is stopped."""

    def __init__(self, folder: str, run_id: str, storage: Storage, process: Process | None = None) -> None:
        """Write the first one, for this process unless another one is given.

        Raises: StorageError, also for a store that cannot keep two runs apart.
        """
        self._uri, self._storage = RunFolder(folder).heartbeat, storage
        self._sign = Sign(run_id=run_id, host=socket.gethostname(), process=process or _process())
        self._stopped = threading.Event()
        self._require_conditional_writes()
        self._write("running")
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")
        self._thread.start()

    def __enter__(self) -> "Heartbeat":
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

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
        self._storage.write_json(self._uri, self._sign.model_dump(exclude_unset=True) | now)


def is_alive(folder: str, storage: Storage, waiting: Callable[[Sign], None] = lambda sign: None) -> bool:
    """Whether the run with this folder still works.

    On the same machine its process tells. Elsewhere its heartbeat is watched for up to `SILENCE_S`, after
    `waiting` was called once. Raises: StorageError.
    """
    first = read(folder, storage)
    if not first.is_running:
        return False
    here = _is_here(first.process)
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
        return abs((datetime.now(UTC) - datetime.fromisoformat(sign.at or "")).total_seconds())
    except (TypeError, ValueError):  # nothing, no date, or one without a time zone
        return float("inf")


def _process() -> Process:
    """This process."""
    with suppress(OSError):
        return Process(**_machine(), pid=os.getpid(), started=_started(os.getpid()))
    return Process(pid=os.getpid())


def _machine() -> dict[str, str]:
    """This kernel since it was booted, and this namespace of process ids: a container has its own."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return {"boot": boot, "pids": os.readlink("/proc/self/ns/pid")}


def _is_here(process: Process) -> bool | None:
    """Whether a process of this machine runs; None if it is of another one."""
    try:
        if process.pid is None or _machine() != {"boot": process.boot, "pids": process.pids}:
            return None
    except OSError:
        return None
    started = _started(process.pid)
    return started is not None and started == process.started


def _started(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None if there is none or it is a zombie.

    psutil adds the time of the boot, which moves when somebody sets the clock.
    """
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        since_boot_s: float = process.create_time() - psutil.boot_time()
        return round(since_boot_s * os.sysconf("SC_CLK_TCK"))
    except (psutil.Error, OSError):
        return None
