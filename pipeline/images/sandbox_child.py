"""The process in which images are decoded: a server that forks workers, and what a worker does.

Started by `sandbox`, with file descriptors as its arguments. The server stays small, has one
thread and never touches an image; each worker that it forks has the decoders loaded already.
"""

import ctypes
import json
import os
import pickle
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RowError
from pipeline.images.decode import PEAK_BYTES_PER_PIXEL, decode
from pipeline.images.options import DecodeOptions
from pipeline.images.sandbox_protocol import FILE, NUMBER, SLOTS, Task, receive

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""
SPARE_BYTES = 256 << 20
"""What a worker may allocate besides one image's bytes and pixels."""


def memory_limit(options: DecodeOptions) -> int:
    """Bytes that a worker may allocate: enough for every image within the configured limits, and no more."""
    return SPARE_BYTES + 2 * options.max_bytes + PEAK_BYTES_PER_PIXEL * options.max_pixels


def main() -> None:
    """The server's life. Arguments are descriptors: of the control socket, of the pixels, of each slot's bytes."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver: it commits what is there
    with suppress(EOFError, OSError):  # the process that started this one is gone
        control, *memory = map(int, sys.argv[1:])
        serve(socket.socket(fileno=control), memory)


def serve(control: socket.socket, memory: list[int]) -> None:
    """Fork a worker for each byte that comes, one at a time, and tell how it ended; until the caller is gone."""
    (size,) = NUMBER.unpack(receive(control, NUMBER.size))
    task: Task = pickle.loads(receive(control, size))  # noqa: S301 - from the process that started this one
    shape = (SLOTS, task.steps.height, task.steps.width, 3)
    pixels = np.frombuffer(mmap(memory[0], 0), np.uint8).reshape(shape)
    end_with_parent = _end_with_parent()
    while control.recv(1):
        ours, theirs = socket.socketpair()
        lives, dies = os.pipe()
        pid = os.fork()
        if pid == 0:
            end_with_parent()
            control.close()
            ours.close()
            _work(theirs, memory[1:], pixels, task)
        theirs.close()
        os.close(dies)  # only the worker has it: its end can be read from the other one
        socket.send_fds(control, [NUMBER.pack(pid)], [ours.fileno()])
        ours.close()
        status = _seen_to_its_end(pid, lives, control)
        os.close(lives)
        control.sendall(NUMBER.pack(status))


def _seen_to_its_end(pid: int, lives: int, control: socket.socket) -> int:
    """How a worker ended, as `os.wait` has it. It is killed if the caller is gone, whatever it is doing."""
    readable, _, _ = select.select([lives, control.fileno()], [], [])
    if control.fileno() in readable:  # nothing is asked for while a worker lives
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _end_with_parent() -> Callable[[], None]:
    """For a forked process to call: it dies with this one, even in the middle of C code. Linux only: elsewhere it
    ends with its time limit, where this process is killed."""
    parent = os.getpid()
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl  # here, because a forked process should load nothing

    def call() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it has died before
            os._exit(1)

    return call


def _work(connection: socket.socket, files: list[int], pixels: NDArray[np.uint8], task: Task) -> None:
    """Decode what comes until the other side is gone; never returns."""
    try:
        _limit_memory(memory_limit(task.options))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders complain of files there
        while True:
            slot, length = FILE.unpack(receive(connection, FILE.size))
            answer = json.dumps(_answer(os.pread(files[slot], length, 0), pixels[slot], task)).encode()
            connection.sendall(NUMBER.pack(len(answer)) + answer)
    except (EOFError, OSError):
        os._exit(0)
    except BaseException:
        os._exit(1)


def _answer(data: bytes, target: NDArray[np.uint8], task: Task) -> dict[str, Any]:
    # No handler is installed: the signal ends the process even in the middle of C code.
    signal.setitimer(signal.ITIMER_REAL, task.options.timeout_s)
    try:
        image = decode(data, task.steps, task.options)
        target[:] = image.pixels
    except RowError as error:
        return {"code": error.code, "message": error.message}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {"width": image.width, "height": image.height, "notes": image.notes}


def _limit_memory(size: int) -> None:
    """Let this process allocate so many bytes more. Only Linux can: elsewhere there is no limit."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status = Path("/proc/self/status")
    if not status.exists():
        return
    used = next(line for line in status.read_text().splitlines() if line.startswith("VmData:"))
    limit = int(used.split()[1]) * 1024 + size
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
