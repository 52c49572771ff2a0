"""What the caller and the decoding child send each other. This module loads no decoder.

Bytes and pixels pass through shared memory, in slots. Sockets carry only the numbers and the answers.
"""

import os
import socket
import struct
from dataclasses import dataclass

from pipeline.images.options import DecodeOptions
from pipeline.preprocessing import Preprocessing

SLOTS = 4
"""Files that a worker has at once: enough that it never waits for the next one, and few bytes in memory."""
FILE = struct.Struct("<IQ")
"""A file for the worker: the slot that has its bytes and gets its pixels, and its length in bytes."""
NUMBER = struct.Struct("<q")
"""A length, a process id or a wait status."""


@dataclass(frozen=True)
class Task:
    """How all workers of a server decode."""

    steps: Preprocessing
    options: DecodeOptions


def receive(connection: socket.socket, size: int) -> bytes:
    """Receive exactly `size` bytes. Raises: EOFError if the other side has closed the connection, OSError."""
    data = connection.recv(size, socket.MSG_WAITALL) if size else b""
    while len(data) < size:
        more = connection.recv(size - len(data), socket.MSG_WAITALL)
        if not more:
            raise EOFError
        data += more
    return data


def write_slot(descriptor: int, data: bytes) -> None:
    """Write a file's bytes to the start of a slot. One call of the system writes 2 GiB at most."""
    view, written = memoryview(data), 0
    while written < len(data):
        written += os.pwrite(descriptor, view[written:], written)


def read_slot(descriptor: int, length: int) -> bytes:
    """Read a file's bytes from the start of a slot. Raises: EOFError if the slot is shorter than `length`."""
    data = os.pread(descriptor, length, 0)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), len(data))
        if not more:
            raise EOFError
        data += more
    return data
