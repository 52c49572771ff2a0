"""A relay before a server on this machine, which counts the bytes of its answers.

It is a process of its own: some clients hold Python's lock while they wait for an answer.
"""

import multiprocessing
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from urllib.parse import urlsplit


@contextmanager
def counting(upstream: str) -> Iterator[tuple[str, Callable[[], int]]]:
    """Relay connections to a URL as they are, so that signatures stay valid.

    Yield the relay's URL, and a function that returns the bytes of all answers so far.
    """
    spawn = multiprocessing.get_context("spawn")
    counted = spawn.Value("q", 0)
    here, there = spawn.Pipe()
    process = spawn.Process(target=_relays, args=(upstream, counted, there), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}", lambda: int(counted.value)
    finally:
        process.kill()
        process.join()


def _relays(upstream: str, counted: "Synchronized[int]", ready: Connection) -> None:
    target = urlsplit(upstream)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        ready.send(listening.getsockname()[1])
        while True:
            client, _ = listening.accept()
            server = socket.create_connection((target.hostname, target.port))
            for source, sink, count in ((client, server, None), (server, client, counted)):
                threading.Thread(target=_relay, args=(source, sink, count), daemon=True).start()


def _relay(source: socket.socket, sink: socket.socket, counted: "Synchronized[int] | None") -> None:
    with suppress(OSError):
        while data := source.recv(1 << 18):
            if counted is not None:
                with counted.get_lock():
                    counted.value += len(data)
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
