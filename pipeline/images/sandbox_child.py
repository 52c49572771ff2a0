"""The process in which images are decoded: a server that forks workers, and what a worker does.

`sandbox` starts it, with file descriptors as its arguments. The server stays small, has one thread and never
touches an image. A worker that it forks has all decoders loaded already. Every actor starts a server, so this
process imports neither Arrow, pydantic nor yaml.
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
from pipeline.images.sandbox_protocol import FILE, NUMBER, SLOTS, Task, read_slot, receive

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""
SPARE_BYTES = 256 << 20
"""What a worker may allocate besides one image's bytes and pixels."""


def memory_limit(options: DecodeOptions) -> int:
    """Return the bytes that a worker may allocate: enough for every image within the limits, and no more."""
    return SPARE_BYTES + 2 * options.max_bytes + PEAK_BYTES_PER_PIXEL * options.max_pixels


def main() -> None:
    """Run the server. Arguments are descriptors: of the control socket, of the pixels, of each slot's bytes."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which commits what it has
    with suppress(EOFError, OSError):  # the process that started this one is gone
        control, *memory = map(int, sys.argv[1:])
        serve(socket.socket(fileno=control), memory)


def serve(control: socket.socket, memory: list[int]) -> None:
    """Fork a worker for each byte that arrives, and report how it ended, until the caller is gone."""
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
        os.close(dies)  # only the worker keeps it open, so `lives` becomes readable when the worker ends
        socket.send_fds(control, [NUMBER.pack(pid)], [ours.fileno()])
        ours.close()
        status = _wait_for(pid, lives, control)
        os.close(lives)
        control.sendall(NUMBER.pack(status))


def _wait_for(pid: int, lives: int, control: socket.socket) -> int:
    """Return the status of an ended worker, as of `os.wait`. Kill the worker if the caller is gone."""
    readable, _, _ = select.select([lives, control.fileno()], [], [])
    if control.fileno() in readable:  # the caller sends nothing while a worker lives
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _end_with_parent() -> Callable[[], None]:
    """Return a function for a forked process to call: from then on it dies with this one, even in C code.

    Only on Linux. Elsewhere a worker ends at its time limit.
    """
    parent = os.getpid()
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl  # here, because a forked process should load nothing

    def call() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return call


def _work(connection: socket.socket, files: list[int], pixels: NDArray[np.uint8], task: Task) -> None:
    """Decode files until the caller closes the connection. It never returns."""
    try:
        _limit_memory(memory_limit(task.options))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write complaints about files there
        while True:
            slot, length = FILE.unpack(receive(connection, FILE.size))
            answer = json.dumps(_answer(read_slot(files[slot], length), pixels[slot], task)).encode()
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
    """Let this process allocate `size` bytes more. Only Linux can: elsewhere there is no limit."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status = Path("/proc/self/status")
    if not status.exists():
        return
    used = next(line for line in status.read_text().splitlines() if line.startswith("VmData:"))
    limit = int(used.split()[1]) * 1024 + size
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
