"""Image files -> pixels in a child process: a file that crashes, hangs or floods its decoder costs only itself.

    IsolatedDecoder ── control ──▶ server   imports the decoders once, forks a worker, waits for its end
          └───────── files ──────▶ worker   decodes file by file, under a time and a memory limit

The worker answers file by file, so the file that killed it is known. The next worker is forked in milliseconds and
continues with the file after it. `sandbox_child` is the other side, `sandbox_protocol` is what both sides know.
"""

import os
import signal
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from mmap import mmap
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ClusterError, ErrorCode, RowError, Stage
from pipeline.images.options import DecodeOptions
from pipeline.images.pixels import DensePixels
from pipeline.images.sandbox_processes import Report, Server, Worker
from pipeline.images.sandbox_protocol import FILE, SLOTS, Task, write_slot
from pipeline.preprocessing import Preprocessing

MAX_DEATHS = 2
"""A file is blamed when this many workers died of it: one can have been killed from outside."""
MIN_SLOT_BYTES = 1 << 20
"""Slots are never smaller: resizing one for every small file is slow."""
STARTS = 3
"""Failed starts of the server in a row before the decoder gives up."""


@dataclass
class _File:
    """One image file: its place in the order, its slot, and how many workers have died of it."""

    index: int
    data: bytes
    deaths: int = 0
    slot: int = 0


@dataclass
class _Call:
    """One call of `decode`: the files that the worker has, the results so far, and the number with pixels."""

    images: NDArray[np.uint8]
    sent: deque[_File] = field(default_factory=deque)
    results: dict[int, Report | RowError] = field(default_factory=dict)
    decoded: int = 0

    def finish(self, result: Report | RowError, pixels: NDArray[np.uint8] | None = None) -> None:
        """Record the result of the oldest file that was sent."""
        self.results[self.sent.popleft().index] = result
        if isinstance(result, Report):
            assert pixels is not None
            self.images[self.decoded] = pixels
            self.decoded += 1

    def dense(self) -> tuple[list[Report | RowError], DensePixels]:
        """Return all results in order, and the pixels of those that have some."""
        reports = [self.results[index] for index in range(len(self.results))]
        decoded = np.array([isinstance(report, Report) for report in reports], np.bool_)
        return reports, DensePixels(self.images[: self.decoded], decoded)


class IsolatedDecoder:
    """`decode.decode` in a child process that may die. Not safe for threads."""

    def __init__(self, steps: Preprocessing, options: DecodeOptions) -> None:
        """Start the child process. It loads its decoders while the caller continues."""
        self._server: Server | None = None
        self._worker: Worker | None = None
        self._memory: list[int] = []
        self._task = Task(steps, options)
        shape = (SLOTS, steps.height, steps.width, 3)
        self._memory += [_shared(int(np.prod(shape))), *(_shared(0) for _ in range(SLOTS))]
        self._pixels = np.frombuffer(mmap(self._memory[0], 0), np.uint8).reshape(shape)
        self._server = Server(self._task, self._memory)

    def decode(self, files: Iterable[bytes | RowError], count: int) -> tuple[list[Report | RowError], DensePixels]:
        """Decode `count` files, in order. A file that is a RowError already stays one.

        Besides the codes of `decode.decode` there are `decode_crashed`, `decode_timeout` and `out_of_memory`.
        Raises: ClusterError if the child process cannot be started.
        """
        call = _Call(np.empty((count, *self._pixels.shape[1:]), np.uint8))
        try:
            for index, file in enumerate(files):
                if isinstance(file, RowError):
                    call.results[index] = file
                    continue
                while len(call.sent) == SLOTS:
                    self._receive(call)
                call.sent.append(_File(index, file))
                self._send(call.sent[-1])
            while call.sent:
                self._receive(call)
        except BaseException:
            self._end_processes()  # their answers for this call must not be taken for those of the next one
            raise
        return call.dense()

    def close(self) -> None:
        """End the child process and free the shared memory."""
        self._end_processes()
        while self._memory:
            os.close(self._memory.pop())

    def _end_processes(self) -> None:
        """End the server, which kills its worker, whatever that is doing."""
        if self._worker is not None:
            self._worker.connection.close()
        if self._server is not None:
            self._server.close()
        self._worker = self._server = None

    def __del__(self) -> None:
        self.close()

    def _receive(self, call: _Call) -> None:
        """Take the worker's answer for the oldest file, or its death as the answer; or send the file once more."""
        file, worker = call.sent[0], self._worker
        assert worker is not None
        answer = worker.answer()
        if answer is None:
            error = self._error(file, self._drop_worker())
        elif _is_out_of_memory(answer) and worker.answered > 1:
            self._drop_worker()  # earlier files may have left little memory: a fresh worker decides
            error = None
        else:
            call.finish(answer, self._pixels[file.slot])
            return
        if error is not None:
            call.finish(error)
        for waiting in call.sent:
            self._send(waiting)

    def _send(self, file: _File) -> None:
        worker = self._worker = self._worker or self._fork()
        file.slot = worker.given % SLOTS
        worker.given += 1
        memory = self._memory[1 + file.slot]
        os.ftruncate(memory, max(len(file.data), MIN_SLOT_BYTES))
        write_slot(memory, file.data)
        with suppress(OSError):  # `Worker.answer` notices a dead worker
            worker.connection.sendall(FILE.pack(file.slot, len(file.data)))

    def _fork(self) -> Worker:
        for _ in range(STARTS):
            self._server = self._server or Server(self._task, self._memory)
            worker = self._server.fork()
            if worker is not None:
                return worker
            self._server.close()
            self._server = None
        raise ClusterError(
            f"The process that decodes images did not start in {STARTS} tries; its node may be out of memory."
        )

    def _drop_worker(self) -> int:
        """Wait for the worker's end. Return the signal that killed it; 0 if none did."""
        worker, self._worker = self._worker, None
        if worker is None or self._server is None:
            return 0
        worker.connection.close()  # a worker that is still alive ends because of this
        status = self._server.status()
        if status is None:  # the server is dead, too
            self._server.close()
            self._server = None
        if worker.silent:
            return signal.SIGALRM
        return os.WTERMSIG(status) if status and os.WIFSIGNALED(status) else 0

    def _error(self, file: _File, killed_by: int) -> RowError | None:
        """Return the error of a file whose worker has died; None to try it once more."""
        file.deaths += 1
        if killed_by == signal.SIGALRM:
            limit = f"decode.timeout_s = {self._task.options.timeout_s:g} seconds"
            return RowError(Stage.DECODE, ErrorCode.DECODE_TIMEOUT, f"decoding took longer than {limit}")
        if file.deaths < MAX_DEATHS:
            return None
        if killed_by == signal.SIGKILL:
            message = "the system killed the decoding process twice, as it does when memory runs out"
            return RowError(Stage.DECODE, ErrorCode.OUT_OF_MEMORY, message)
        return RowError(Stage.DECODE, ErrorCode.DECODE_CRASHED, "the decoding process crashed twice")


def _is_out_of_memory(answer: Report | RowError) -> bool:
    return isinstance(answer, RowError) and answer.code is ErrorCode.OUT_OF_MEMORY


def _shared(size: int) -> int:
    """Return a file descriptor of memory that a child process can map."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("lakelens-decode")
    else:
        with TemporaryFile(prefix="lakelens-decode-") as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor
