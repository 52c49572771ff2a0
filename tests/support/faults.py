"""A faulting proxy between a job and its S3 server, as a process of its own.

Run it by `python -m tests.support.faults UPSTREAM`.

Requests are passed on with their raw path, Host and all that is signed, so that signatures still verify. How often
it does what to them, its `Weather`, is set from outside while it runs. It does not know what the objects mean.
"""

import asyncio
import json
import random
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from tests.support import orphans

CONTROL = "/-/"
"""No bucket has this name."""
PIECES = 10
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}
_UNKNOWN = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")


class Fault(StrEnum):
    """What may happen to a request."""

    ERROR_500 = "500"
    ERROR_503 = "503"
    RESET = "reset"  # the connection is closed, and nothing was passed on
    SILENCE = "silence"  # no answer for `silence_s`, then the connection is closed; nothing was passed on
    DRIP = "drip"  # the body takes `drip_s`
    HALF = "half"  # half of the body under the length of the whole
    REFUSE = "refuse"  # access is denied
    LOST = "lost"  # passed on and done, but the connection is closed without the answer
    LATE = "late"  # the connection is closed at once, and it is passed on `late_s` later


_CHANGES = ("PUT", "POST", "DELETE")
METHODS: dict[Fault, tuple[str, ...]] = {
    **dict.fromkeys((Fault.ERROR_500, Fault.ERROR_503, Fault.RESET, Fault.SILENCE), ("GET", "HEAD", *_CHANGES)),
    **dict.fromkeys((Fault.DRIP, Fault.HALF), ("GET",)),
    Fault.REFUSE: ("PUT",),
    **dict.fromkeys((Fault.LOST, Fault.LATE), _CHANGES),
}
"""Which requests each fault can happen to."""


@dataclass(frozen=True)
class Weather:
    """How often each fault happens to a request that it can happen to, where the path matches."""

    rates: dict[str, float] = field(default_factory=dict)
    matching: str = ""
    silence_s: float = 2.0
    drip_s: float = 1.0
    late_s: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Seen:
    """What came through since the proxy started: faults by kind, PUTs that landed by path, requests in flight."""

    faults: dict[str, int]
    landed: dict[str, int]
    in_flight: int


class FaultingProxy:
    """The handler of all requests."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream.rstrip("/")
        self._weather, self._random = Weather(), random.Random(0)
        self._faults: Counter[str] = Counter()
        self._landed: Counter[str] = Counter()
        self._in_flight = 0
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith(CONTROL):
            return await self._control(request)
        self._in_flight += 1
        try:
            return await self._handle(request)
        except ConnectionError:  # the client has left
            return _closed(request)
        finally:
            self._in_flight -= 1

    async def _control(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "PUT":
            self._weather = Weather(**await request.json())
            self._random = random.Random(self._weather.seed)
        return web.json_response(asdict(Seen(dict(self._faults), dict(self._landed), self._in_flight)))

    def _draw(self, request: web.BaseRequest) -> Fault | None:
        if not re.search(self._weather.matching, request.raw_path):
            return None
        chance = self._random.random()
        for name, rate in self._weather.rates.items():
            if request.method in METHODS[Fault(name)]:
                if chance < rate:
                    return Fault(name)
                chance -= rate
        return None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Expect") and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await request.read()
        fault = self._draw(request)
        if fault is not None:
            self._faults[fault] += 1
            refusal = await self._refused(request, fault)
            if refusal is not None:
                return refusal
        try:
            answer, content = await self._pass_on(request, body)
        except aiohttp.ClientError:
            self._faults["unreachable"] += 1
            return _closed(request)
        return (
            _closed(request)
            if fault in (Fault.LOST, Fault.LATE)
            else await self._give(request, answer, content, fault)
        )

    async def _refused(self, request: web.BaseRequest, fault: Fault) -> web.StreamResponse | None:
        """The answer to a request that is not passed on; None for one that is."""
        match fault:
            case Fault.ERROR_500:
                return _error(500, "InternalError")
            case Fault.ERROR_503:
                return _error(503, "SlowDown")
            case Fault.REFUSE:
                return _error(403, "AccessDenied")
            case Fault.RESET:
                return _closed(request)
            case Fault.SILENCE:
                await asyncio.sleep(self._weather.silence_s)
                return _closed(request)
            case Fault.LATE:
                _closed(request)
                await asyncio.sleep(self._weather.late_s)
        return None

    async def _pass_on(self, request: web.BaseRequest, body: bytes) -> tuple[aiohttp.ClientResponse, bytes]:
        if self._session is None:  # a connection for each request: none is stale, and none is tried twice
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        async with self._session.request(
            request.method,
            URL(self._upstream + request.raw_path, encoded=True),
            headers=[(name, value) for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP],
            data=body or (b"" if request.method in ("PUT", "POST") else None),
            skip_auto_headers=_UNKNOWN,
            allow_redirects=False,
        ) as answer:
            content = await answer.read()
        if request.method == "PUT" and answer.status == 200:
            self._landed[request.raw_path.partition("?")[0]] += 1
        return answer, content

    async def _give(
        self, request: web.BaseRequest, answer: aiohttp.ClientResponse, content: bytes, fault: Fault | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in HOP_BY_HOP or (request.method == "HEAD" and name.lower() == "content-length"):
                response.headers.add(name, value)
        if request.method != "HEAD" and answer.status not in (204, 304):
            response.content_length = len(content)
        await response.prepare(request)
        if fault == Fault.HALF:
            await response.write(content[: len(content) // 2])
            return _closed(request, response)
        size = max(1, len(content) // PIECES) if fault == Fault.DRIP else len(content) or 1
        for start in range(0, len(content), size):
            await response.write(content[start : start + size])
            await asyncio.sleep(self._weather.drip_s / PIECES if fault == Fault.DRIP else 0)
        await response.write_eof()
        return response


def _closed(request: web.BaseRequest, response: web.StreamResponse | None = None) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.close()
    return response or web.Response()


def _error(status: int, code: str) -> web.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>a fault</Message></Error>'
    return web.Response(status=status, text=text, content_type="application/xml")


async def _serve(upstream: str) -> None:
    runner = web.ServerRunner(web.Server(FaultingProxy(upstream), auto_decompress=False, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


@dataclass(frozen=True)
class Proxy:
    """A running proxy, seen from outside."""

    endpoint_url: str

    def set(self, weather: Weather) -> None:
        """From now on it does this; `Weather()` is none."""
        self._ask("PUT", json.dumps(asdict(weather)).encode())

    def seen(self) -> Seen:
        """What has come through so far."""
        return Seen(**self._ask("GET"))

    def _ask(self, method: str, data: bytes | None = None) -> Any:
        request = urllib.request.Request(f"{self.endpoint_url}{CONTROL}weather", data=data, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    """A proxy in a process of its own, which is ended by its process id."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.faults", upstream],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[2],
        preexec_fn=orphans.none_left,
    )
    assert process.stdout is not None
    try:
        with process.stdout as lines:
            yield Proxy(f"http://127.0.0.1:{int(lines.readline())}")
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
