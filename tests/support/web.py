"""A small HTTP server on 127.0.0.1 that answers as its paths say, also wrongly."""

import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = bytes(range(256)) * 40
SIGNED = "signed"


class Handler(BaseHTTPRequestHandler):
    """`/status/503` answers so; `/ranges/x` knows ranges, `/plain/x` does not; the rest misbehaves."""

    protocol_version = "HTTP/1.1"
    asked: Counter[str]
    sent: list[tuple[str, str]]
    crowd = threading.Lock()
    inside: list[int]

    def do_GET(self) -> None:
        """Of a proxy's request the whole URL is noted, and what it asks another host for is answered here."""
        self.sent.append((self.path, self.headers.get("User-Agent", "")))
        path = re.sub("^http://[^/]*", "", self.path).partition("?")[0]
        self.asked[path] += 1
        self.asked[SIGNED] += "Authorization" in self.headers
        _, kind, value, *_ = [*path.split("/"), ""]
        with suppress(OSError):
            getattr(self, f"_{kind}")(value)

    def log_request(self, *args: object) -> None:
        """Nothing is said."""

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        """Refused, as a URL is that was signed for a GET."""
        self.asked["HEAD"] += 1
        self._send(403, b"")

    def _throttled(self, value: str) -> None:
        """`<status>-<times>-<Retry-After or S3 code>`: asks so often to slow down, and then gives the body."""
        status, times, said = value.split("-", 2)
        if self.asked[f"/throttled/{value}"] > int(times):
            return self._ranges("")
        if said.isalpha():
            return self._send(int(status), b"<Error><Code>%s</Code></Error>" % said.encode())
        after = said if said.isdigit() else formatdate(time.time() + float(said or 0), usegmt=True)
        return self._send(int(status), b"", Retry_After=after)

    def _crowded(self, value: str) -> None:
        """Serves so many requests at once, and throttles the others."""
        with self.crowd:
            self.inside.append(len(self.inside))
            crowded = len(self.inside) > int(value)
        time.sleep(0.005)
        with self.crowd:
            self.inside.pop()
        self._send(429, b"", Retry_After="0") if crowded else self._send(200, BODY)

    def _status(self, value: str) -> None:
        self._send(int(value), b"no", Location="/status/200")

    def _plain(self, value: str) -> None:
        self._send(200, BODY)

    def _empty(self, value: str) -> None:
        self._send(200, b"")

    def _ranges(self, value: str) -> None:
        asked = self.headers.get("Range")
        if asked is None:
            return self._send(200, BODY)
        first, last = (int(number or len(BODY) - 1) for number in asked.removeprefix("bytes=").split("-"))
        if first >= len(BODY):
            return self._send(416, b"")
        part = BODY[first : last + 1]
        said = f"bytes {first}-{first + len(part) - 1}/{len(BODY)}"
        return self._send(206, part, Content_Range=said)

    def _strict(self, value: str) -> None:
        """Refuses a range that goes past the end, as some servers do; "sized" says how long the body is."""
        asked = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")
        if int(asked[1] or 0) >= len(BODY) or int(asked[0]) >= len(BODY):
            size = {"Content_Range": f"bytes */{len(BODY)}"} if value == "sized" else {}
            return self._send(416, b"", **size)
        if "Range" not in self.headers:
            return self._send(200, BODY)
        first, last = int(asked[0]), int(asked[1] or len(BODY) - 1)
        self._send(206, BODY[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(BODY)}")

    def _wrongrange(self, value: str) -> None:
        self._send(206, BODY[5:9], Content_Range="bytes 5-8/100")

    def _norange(self, value: str) -> None:
        self._send(206, BODY)

    def _half(self, value: str) -> None:
        self._send(200, BODY[:100], Content_Length=str(len(BODY)))
        self.close_connection = True

    def _endless(self, value: str) -> None:
        self._send(200, BODY, Content_Length=str(1 << 40))
        while True:
            self.wfile.write(BODY)

    def _drip(self, value: str) -> None:
        self._send(200, b"x", Content_Length="1000000")
        while True:
            time.sleep(0.1)
            self.wfile.write(b"x")
            self.wfile.flush()

    def _silent(self, value: str) -> None:
        time.sleep(5)

    def _reset(self, value: str) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)

    def _garbage(self, value: str) -> None:
        self.wfile.write(b"this is no HTTP\r\n\r\n")
        self.close_connection = True

    def _loop(self, value: str) -> None:
        self._send(302, b"", Location=self.path)

    def _keys(self, value: str) -> None:
        """A bucket of that name, with slashes in its keys as they were written; an object says where it is."""
        if value:
            return self._send(200, self.path.encode())
        keys = ("a/p//b.jpg", "a//c.jpg", "a/ok.jpg")
        found = "".join(f"<Contents><Key>{key}</Key><Size>9</Size></Contents>" for key in keys)
        self._send(200, f"<ListBucketResult><KeyCount>3</KeyCount>{found}</ListBucketResult>".encode())

    def _signed(self, value: str) -> None:
        self._send(302, b"", Location="/ranges/a%3Ab%40c?sig=ab%2Fcd%3D&x='y'")

    def _moved(self, value: str) -> None:
        self._send(301, b"", Location="/ranges/x")

    def _flaky(self, value: str) -> None:
        """Fails as often as its name says, and then does not."""
        if self.asked[self.path] <= int(value):
            return self._send(503, b"")
        return self._send(200, BODY)


class Web(ThreadingHTTPServer):
    """The server, how often each path was asked for, and what was sent: request targets and User-Agents."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.sent: list[tuple[str, str]] = []
        noted = {"asked": self.asked, "sent": self.sent, "inside": []}
        super().__init__(("127.0.0.1", 0), type("Counted", (Handler,), noted))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def signed(self) -> int:
        """Requests that came with a signature or password."""
        return self.asked[SIGNED]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may leave when they like."""


@contextmanager
def serving() -> Iterator[Web]:
    """A running server."""
    server = Web()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
