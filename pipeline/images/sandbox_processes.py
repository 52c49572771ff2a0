"""The caller's handles of the decoding child: the server process, and the worker that it has forked.

It decides nothing: `sandbox` says what the death of a worker means for its file.
"""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ErrorCode, RowError, Stage
from pipeline.images.sandbox_protocol import NUMBER, Task, receive

GRACE_S = 10.0
"""A worker that is silent for this long beyond its own time limit is killed from outside."""
START_S = 120.0
"""A server that is silent for this long is killed. It starts in less than a second where nothing else runs."""
END_S = 1.0
"""A server that has been told to end gets this long before it is killed."""
KEPT_BYTES = 32 << 20
"""glibc's malloc takes blocks up to this size from the heap, and keeps twice as much. 32 MiB is its maximum."""

_MAIN = "from pipeline.images.sandbox_child import main; main()"


@dataclass(frozen=True)
class Report:
    """What decoding found: the upright original's size in pixels, and what was done beyond plain decoding."""

    width: int
    height: int
    notes: tuple[str, ...]


class Server:
    """The process that workers are forked from, one at a time."""

    def __init__(self, task: Task, memory: list[int]) -> None:
        """Start it. `memory` are the descriptors of the pixels and of each slot's bytes."""
        self._silence_s = task.options.timeout_s + GRACE_S
        self._control, theirs = socket.socketpair()
        self._control.settimeout(max(START_S, self._silence_s))
        # One thread: a process that forks must have no others, and decoding uses none.
        settings = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        # malloc keeps an image's memory for the next one: mapping it again is slow.
        settings.update(MALLOC_MMAP_THRESHOLD_=str(KEPT_BYTES), MALLOC_TRIM_THRESHOLD_=str(2 * KEPT_BYTES))
        with theirs:
            descriptors = (theirs.fileno(), *memory)
            self.process = subprocess.Popen(  # noqa: S603 - this very interpreter and module
                [sys.executable, "-c", _MAIN, *map(str, descriptors)],
                pass_fds=descriptors,
                env={**os.environ, **settings, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        data = pickle.dumps(task)
        with suppress(OSError):
            self._control.sendall(NUMBER.pack(len(data)) + data)

    def fork(self) -> "Worker | None":
        """Fork a worker. Return None if the server is dead or does not answer."""
        try:
            self._control.sendall(b"f")
            data, descriptors, _, _ = socket.recv_fds(self._control, NUMBER.size, 1)
        except OSError:
            return None
        if not descriptors:
            return None
        connection = socket.socket(fileno=descriptors[0])
        connection.settimeout(self._silence_s)
        return Worker(connection, NUMBER.unpack(data)[0])

    def status(self) -> int | None:
        """Wait for the worker's end. Return its status, as of `os.wait`; None if the server is dead or silent."""
        try:
            return int(NUMBER.unpack(receive(self._control, NUMBER.size))[0])
        except (OSError, EOFError):
            return None

    def close(self) -> None:
        """End the server. It kills its worker first."""
        self._control.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(END_S)
        self.process.kill()
        self.process.wait()


@dataclass
class Worker:
    """A forked process: how many files it was given and has answered for, and whether it had to be killed."""

    connection: socket.socket
    pid: int
    given: int = 0
    answered: int = 0
    silent: bool = False

    def answer(self) -> Report | RowError | None:
        """Receive the answer for the next file. Return None if the worker is dead; a silent one is killed."""
        try:
            (size,) = NUMBER.unpack(receive(self.connection, NUMBER.size))
            found = _parsed(json.loads(receive(self.connection, size).decode()))
        except TimeoutError:
            self.silent = True
            os.kill(self.pid, signal.SIGKILL)
            return None
        except (OSError, EOFError, ValueError):
            return None
        self.answered += 1
        return found


def _parsed(answer: dict[str, Any]) -> Report | RowError:
    if "code" in answer:
        return RowError(Stage.DECODE, ErrorCode(answer["code"]), answer["message"])
    return Report(answer["width"], answer["height"], tuple(answer["notes"]))
