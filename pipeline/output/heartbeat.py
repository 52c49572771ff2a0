"""The heartbeat of the run that owns an output: `runs/<run_id>/heartbeat.json`, written every few seconds.

It tells a running run from a killed one, so that a second run does not start beside the first. It is no lock: only
the table's epoch keeps two runs apart.
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
"""A run whose heartbeat does not change for this long is dead. The retries of a store take less."""
CLOCKS_S = 600.0
"""How far apart the clocks of two machines may be. A run with an older heartbeat is dead."""
POLL_S = 1.0


class Process(Document):
    """A process, described so that other processes on its machine can tell whether it still runs.

    `boot` is the id of the machine's boot, `pids` the namespace of process ids, `started` the start of the process
    in clock ticks since boot. Only Linux has them.
    """

    boot: str | None = None
    pids: str | None = None
    pid: int | None = None
    started: int | None = None


class HeartbeatRecord(Document):
    """The content of a heartbeat file; empty if there is no file.

    `status` is running or ended. `at` is the time of writing, as ISO 8601 in UTC.
    """

    run_id: str | None = None
    host: str | None = None
    process: Process = Process()
    status: str | None = None
    at: str | None = None

    @property
    def is_running(self) -> bool:
        """Whether the run has begun, and has not written that it has ended."""
        return self.status == "running"

    @property
    def described(self) -> str:
        """The run in words, for messages."""
        return f"{self.run_id} ({self.host}, process {self.process.pid}; last heartbeat at {self.at})"


def read(folder: str, storage: Storage) -> HeartbeatRecord:
    """Read the heartbeat in a run's folder. Raises: StorageError, also for a damaged file."""
    uri = RunFolder(folder).heartbeat
    data = storage.read(uri)
    return (
        HeartbeatRecord()
        if data is None
        else parsed(HeartbeatRecord, data, uri, "delete it if that run has ended")
    )


class Heartbeat:
    """The heartbeat of this run. A thread of its own writes it until it is stopped."""

    def __init__(self, folder: str, run_id: str, storage: Storage, process: Process | None = None) -> None:
        """Write the first heartbeat, for this process unless another one is given.

        Raises: StorageError, also for a store that does not honour conditional writes.
        """
        self._uri, self._storage = RunFolder(folder).heartbeat, storage
        self._record = HeartbeatRecord(run_id=run_id, host=socket.gethostname(), process=process or _process())
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
        """Write that the run has ended. If the store fails now, the heartbeat just falls silent."""
        self._end()
        with suppress(LakeLensError):
            self._write("ended")

    def discard(self) -> None:
        """Delete the heartbeat of a run that could not claim the output."""
        self._end()
        with suppress(LakeLensError):
            self._storage.delete(self._uri)

    def _end(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _require_conditional_writes(self) -> None:
        """Check that the store honours `If-None-Match`, which keeps two runs apart in the table's log."""
        self._storage.create(self._uri, b"{}")
        if self._storage.create(self._uri, b"{}"):
            raise StorageError(
                f"Cannot use the store of {self._uri} for output.path: it ignores conditional writes "
                "(If-None-Match), so two runs could overwrite each other's commits. Use another store."
            )

    def _beat(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            with suppress(LakeLensError):  # one failed heartbeat does not end a run
                self._write("running")

    def _write(self, status: str) -> None:
        now = {"status": status, "at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        self._storage.write_json(self._uri, self._record.model_dump(exclude_unset=True) | now)


def is_alive(
    folder: str, storage: Storage, waiting: Callable[[HeartbeatRecord], None] = lambda record: None
) -> bool:
    """Tell whether the run with this folder is still running.

    On the machine of the run, look for its process. Elsewhere call `waiting` once, and watch the heartbeat for up
    to `SILENCE_S`. Raises: StorageError.
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


def _age_s(record: HeartbeatRecord) -> float:
    try:
        return abs((datetime.now(UTC) - datetime.fromisoformat(record.at or "")).total_seconds())
    except (TypeError, ValueError):  # no time, or one without a time zone
        return float("inf")


def _process() -> Process:
    """Describe this process."""
    with suppress(OSError):
        return Process(**_machine(), pid=os.getpid(), started=_started(os.getpid()))
    return Process(pid=os.getpid())


def _machine() -> dict[str, str]:
    """Return the ids of this boot and of this namespace of process ids. A container has its own namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return {"boot": boot, "pids": os.readlink("/proc/self/ns/pid")}


def _is_here(process: Process) -> bool | None:
    """Tell whether a process of this machine runs; None if it belongs to another machine."""
    try:
        if process.pid is None or _machine() != {"boot": process.boot, "pids": process.pids}:
            return None
    except OSError:
        return None
    started = _started(process.pid)
    return started is not None and started == process.started


def _started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it does not exist or is a zombie.

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
