"""HTTPS before a plain server of the tests, with a certificate of an authority that nobody knows."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MADE = """
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=tests
openssl req -newkey rsa:2048 -nodes -keyout key.pem -out request.csr -subj /CN=localhost
openssl x509 -req -in request.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out own.pem -days 30 -extfile names
"""


@dataclass(frozen=True)
class Secured:
    """The address to use, and the certificate of its authority."""

    url: str
    ca_file: Path


@contextmanager
def before(port: int, folder: Path) -> Iterator[Secured]:
    """Pass connections on to a port of this machine."""
    folder.mkdir(exist_ok=True)
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    for line in MADE.strip().splitlines():
        subprocess.run(line.split(), cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "own.pem", folder / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server, context, port), daemon=True).start()
        yield Secured(f"https://localhost:{server.getsockname()[1]}", folder / "ca.pem")


def _serve(server: socket.socket, context: ssl.SSLContext, port: int) -> None:
    while True:
        try:
            accepted, _ = server.accept()
        except OSError:  # it is closed
            return
        threading.Thread(target=_pass_on, args=(accepted, context, port), daemon=True).start()


def _pass_on(accepted: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with (
        suppress(OSError),
        accepted,
        context.wrap_socket(accepted, server_side=True) as secured,
        socket.create_connection(("127.0.0.1", port)) as behind,
    ):
        asking = threading.Thread(target=_pump, args=(secured, behind), daemon=True)
        asking.start()
        _pump(behind, secured)
        asking.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
