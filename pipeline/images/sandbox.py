"""Image files -> pixels in a child process: a file that crashes, hangs or floods its decoder costs itself only.

    IsolatedDecoder ── control ──▶ server   imports the decoders once, forks a worker, waits for its end
          └───────── files ──────▶ worker   decodes file by file, under a time and a memory limit

The worker answers file by file, so the one that it was at when it died is known; the next worker is forked in
milliseconds and goes on behind it. Bytes and pixels pass through shared memory. `sandbox_child` is the other side,
`sandbox_protocol` what both know.
"""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from mmap import mmap
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ClusterError, ErrorCode, RowError, Stage
from pipeline.images.options import DecodeOptions
from pipeline.images.sandbox_protocol import FILE, NUMBER, SLOTS, Task, receive
from pipeline.preprocessing import Preprocessing

GRACE_S = 10.0
"""How long beyond its own time limit a worker may be silent before it is killed from outside."""
DEATHS = 2
"""A file that so many workers die of is to blame: once can be an accident, such as a kill from outside."""
KEPT_BYTES = 32 << 20
"""What glibc's malloc takes from the heap, and twice of which it keeps there; 32 MiB is the most it accepts."""
SLOT_BYTES = 1 << 20
"""What a slot for a file always has: to make it smaller and larger for every file takes long."""
END_S = 1.0
"""How long the server may take to end by itself."""
STARTS = 3
"""How often in a row the server may fail to start."""

_MAIN = "from pipeline.images.sandbox_child import main; main()"


@dataclass(frozen=True)
class Report:
    """What decoding found: the upright original's size in pixels, and what was done beyond plain decoding."""

    width: int
    height: int
    notes: tuple[str, ...]


@dataclass
class _File:
    """One image file, its place in the order, and how many workers have died of it."""

    index: int
    data: bytes
    deaths: int = 0
    slot: int = 0


@dataclass
class _Work:
    """One call of `decode`: the files that a worker has, what became of those before, how many have pixels."""

    pixels: NDArray[np.uint8]
    sent: deque[_File] = field(default_factory=deque)
    results: dict[int, Report | RowError] = field(default_factory=dict)
    decoded: int = 0

    def finish(self, result: Report | RowError, pixels: NDArray[np.uint8] | None = None) -> None:
        """The oldest file that was sent is done with."""
        self.results[self.sent.popleft().index] = result
        if isinstance(result, Report):
            assert pixels is not None
            self.pixels[self.decoded] = pixels
            self.decoded += 1


class IsolatedDecoder:
    """`decode.decode` in a child process that may die. Not safe for threads."""

    def __init__(self, steps: Preprocessing, options: DecodeOptions) -> None:
        """Start the child; it gets ready while the caller goes on."""
        self._server: _Server | None = None
        self._worker: _Worker | None = None
        self._task = Task(steps, options)
        shape = (SLOTS, steps.height, steps.width, 3)
        self._memory = [_shared(int(np.prod(shape))), *(_shared(0) for _ in range(SLOTS))]
        self._pixels = np.frombuffer(mmap(self._memory[0], 0), np.uint8).reshape(shape)
        self._server = _Server(self._task, self._memory)

    def decode(self, files: Iterable[bytes | RowError], pixels: NDArray[np.uint8]) -> list[Report | RowError]:
        """Decode every file, in order; `pixels` uint8 (N, H, W, 3) gets those that can be, one behind the other.

        What is a RowError already stays one. The codes besides those of `decode` are `decode_crashed`,
        `decode_timeout` and `out_of_memory`. Raises: ClusterError if the child process cannot be started.
        """
        work = _Work(pixels)
        for index, file in enumerate(files):
            if isinstance(file, RowError):
                work.results[index] = file
                continue
            while len(work.sent) == SLOTS:
                self._receive(work)
            work.sent.append(_File(index, file))
            self._send(work.sent[-1])
        while work.sent:
            self._receive(work)
        return [work.results[index] for index in range(len(work.results))]

    def close(self) -> None:
        """End the child process."""
        if self._worker is not None:
            self._worker.connection.close()
        if self._server is not None:
            self._server.close()
        self._worker = self._server = None
        while self._memory:
            os.close(self._memory.pop())

    def __del__(self) -> None:
        self.close()

    def _receive(self, work: "_Work") -> None:
        """Take the answer for the oldest file, or its worker's death for it; or try it once more."""
        file, worker = work.sent[0], self._worker
        assert worker is not None
        found = worker.answer()
        if found is None:
            error = self._error(file, self._end_worker())
        elif found.get("code") == ErrorCode.OUT_OF_MEMORY and worker.answered > 1:
            self._end_worker()  # what earlier files have left behind is not held against this one
            error = None
        else:
            work.finish(_result(found), self._pixels[file.slot])
            return
        if error is not None:
            work.finish(error)
        for waiting in work.sent:
            self._send(waiting)

    def _send(self, file: _File) -> None:
        worker = self._worker = self._worker or self._fork()
        file.slot = worker.given % SLOTS
        worker.given += 1
        memory = self._memory[1 + file.slot]
        os.ftruncate(memory, max(len(file.data), SLOT_BYTES))
        os.pwrite(memory, file.data, 0)
        with suppress(OSError):  # a worker that has died is noticed where its answers are read
            worker.connection.sendall(FILE.pack(file.slot, len(file.data)))

    def _fork(self) -> "_Worker":
        for _ in range(STARTS):
            self._server = self._server or _Server(self._task, self._memory)
            worker = self._server.fork(self._task.options.timeout_s + GRACE_S)
            if worker is not None:
                return worker
            self._server.close()
            self._server = None
        raise ClusterError("The process that decodes images cannot be started; its node may be out of memory.")

    def _end_worker(self) -> int:
        """See the worker to its end; returns the signal that it died of, 0 for none."""
        assert self._worker is not None
        assert self._server is not None
        worker, self._worker = self._worker, None
        worker.connection.close()  # one that lives still ends by that
        status = self._server.status()
        if status is None:  # the server died, too
            self._server.close()
            self._server = None
        if worker.silent:
            return signal.SIGALRM
        return os.WTERMSIG(status) if status and os.WIFSIGNALED(status) else 0

    def _error(self, file: _File, died_of: int) -> RowError | None:
        """What the death of a worker says of the file that it was at; None if nothing yet."""
        file.deaths += 1
        if died_of == signal.SIGALRM:
            limit = f"decode.timeout_s = {self._task.options.timeout_s:g} seconds"
            return RowError(Stage.DECODE, ErrorCode.DECODE_TIMEOUT, f"decoding it takes more than {limit}")
        if file.deaths < DEATHS:
            return None
        if died_of == signal.SIGKILL:
            return RowError(Stage.DECODE, ErrorCode.OUT_OF_MEMORY, "the system killed its decoder")
        return RowError(Stage.DECODE, ErrorCode.DECODE_CRASHED, "decoding it ends the process")


class _Server:
    """The process that workers are forked from, one at a time."""

    def __init__(self, task: Task, memory: list[int]) -> None:
        self._control, theirs = socket.socketpair()
        # One thread: a process that forks must have no others, and decoding uses none.
        settings = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        # An image's memory is kept for the next one, not given back: to have it mapped anew takes long.
        settings.update(MALLOC_MMAP_THRESHOLD_=str(KEPT_BYTES), MALLOC_TRIM_THRESHOLD_=str(2 * KEPT_BYTES))
        with theirs:
            descriptors = (theirs.fileno(), *memory)
            self._process = subprocess.Popen(  # noqa: S603 - this very interpreter and module
                [sys.executable, "-c", _MAIN, *map(str, descriptors)],
                pass_fds=descriptors,
                env={**os.environ, **settings, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        data = pickle.dumps(task)
        with suppress(OSError):
            self._control.sendall(NUMBER.pack(len(data)) + data)

    def fork(self, patience_s: float) -> "_Worker | None":
        """A new worker, which may be silent for so long; None if the server is dead."""
        try:
            self._control.sendall(b"f")
            data, descriptors, _, _ = socket.recv_fds(self._control, NUMBER.size, 1)
        except OSError:
            return None
        if not descriptors:
            return None
        connection = socket.socket(fileno=descriptors[0])
        connection.settimeout(patience_s)
        return _Worker(connection, NUMBER.unpack(data)[0])

    def status(self) -> int | None:
        """How the last worker died, as `os.wait` has it; waits for that. None if the server is dead."""
        try:
            return int(NUMBER.unpack(receive(self._control, NUMBER.size))[0])
        except (OSError, EOFError):
            return None

    def close(self) -> None:
        self._control.close()  # it ends by that, and kills its worker before
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        self._process.kill()
        self._process.wait()


@dataclass
class _Worker:
    """A forked process; how many files it was given and has answered for, and whether it had to be killed."""

    connection: socket.socket
    pid: int
    given: int = 0
    answered: int = 0
    silent: bool = False

    def answer(self) -> dict[str, Any] | None:
        """The answer for the next file; None if the worker has died, or neither answers nor dies."""
        try:
            (size,) = NUMBER.unpack(receive(self.connection, NUMBER.size))
            found: dict[str, Any] = json.loads(receive(self.connection, size).decode())
        except TimeoutError:
            self.silent = True
            os.kill(self.pid, signal.SIGKILL)
            return None
        except (OSError, EOFError, ValueError):
            return None
        self.answered += 1
        return found


def _result(found: dict[str, Any]) -> Report | RowError:
    if "code" in found:
        return RowError(Stage.DECODE, ErrorCode(found["code"]), found["message"])
    return Report(found["width"], found["height"], tuple(found["notes"]))


def _shared(size: int) -> int:
    """A file descriptor of memory that a child can map, too."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("lakelens-decode")
    else:
        with TemporaryFile(prefix="lakelens-decode-") as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor
