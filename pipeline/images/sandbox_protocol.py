"""What passes between the process that has images decoded and the one that decodes; no decoder is loaded by it."""

import socket
import struct
from dataclasses import dataclass

from pipeline.images.options import DecodeOptions
from pipeline.preprocessing import Preprocessing

SLOTS = 4
"""Files that a process has at once: its worker never waits for the next one, and little is held."""
FILE = struct.Struct("<IQ")
"""A file for the worker: the slot in which its bytes are and its pixels go, and its length."""
NUMBER = struct.Struct("<q")


@dataclass(frozen=True)
class Task:
    """How a server's workers decode."""

    steps: Preprocessing
    options: DecodeOptions


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes. Raises: EOFError if the other side is gone, OSError."""
    data = connection.recv(size, socket.MSG_WAITALL) if size else b""
    while len(data) < size:
        more = connection.recv(size - len(data), socket.MSG_WAITALL)
        if not more:
            raise EOFError
        data += more
    return data
