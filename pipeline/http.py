"""fsspec's HTTP filesystem, with ranges that hold whatever the server does, and URLs sent as they are written.

fsspec reads whole bodies, also those that answer a request for a range. Here never more than the range is kept,
the answer is checked to be what was asked for, and a server that drips is left. Proxies are those of the
environment; nothing else is taken from it, so that no password of ~/.netrc reaches an image's host.
"""

import re
import string
from typing import Any
from urllib.parse import quote
from urllib.request import getproxies, proxy_bypass

import aiohttp
from fsspec.implementations.http import HTTPFileSystem
from yarl import URL

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
"""Between two pieces of a body."""
TOTAL_TIMEOUT_S = 120.0
"""For one request: at the default `decode.max_bytes`, 400 kB/s."""
REDIRECTS = 5
PIECE_BYTES = 1 << 18

TIMEOUT = aiohttp.ClientTimeout(total=TOTAL_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)

_MOVED = (301, 302, 303, 307, 308)
_PAST_THE_END = 416
_SENT_AS_IT_IS = string.punctuation
"""Of a URL: encoding or decoding any of these would break a signature. Letters and digits stay anyway."""


class RangedHTTP(HTTPFileSystem):  # type: ignore[misc]
    """`cat_file(url, start, end)` gives exactly those bytes of the body, or fewer where it ends."""

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Raises: FileNotFoundError, aiohttp.ClientError, TimeoutError; ValueError for an offset from the end."""
        first = start or 0
        if first < 0 or (end is not None and end < 0):
            raise ValueError("a range is counted from the start")
        if end is not None and end <= first:
            return b""
        asked = f"bytes={first}-{'' if end is None else end - 1}" if first or end is not None else None
        while True:
            async with await self._answer(url, asked) as found:
                fewer = _without_end(found, first) if found.status == _PAST_THE_END and asked else None
                if fewer is None or fewer == asked:
                    self._raise_not_found_for_status(found, url)
                    skip = first - _begins_at(found)
                    return await _read(found.content, skip, None if end is None else end - first)
            asked = fewer or None

    async def _answer(self, url: str, asked: str | None) -> aiohttp.ClientResponse:
        """What the server answers, behind redirects. Raises: aiohttp.ClientError."""
        # A compressed body has other offsets.
        headers = {**self.kwargs.get("headers", {}), "Accept-Encoding": "identity"}
        if asked:
            headers["Range"] = asked
        session, here = await self.set_session(), exactly(url)
        for _ in range(REDIRECTS):
            options = {"headers": headers, "allow_redirects": False, "proxy": _proxy_of(here)}
            found: aiohttp.ClientResponse = await session.get(here, **options)
            to = found.headers.get("Location") if found.status in _MOVED else None
            if to is None:
                return found
            found.release()
            here = here.join(exactly(to))
            if here.scheme not in ("http", "https"):
                raise aiohttp.NonHttpUrlRedirectClientError(here)
        raise aiohttp.TooManyRedirects(found.request_info, (found,), status=found.status)


def exactly(url: str) -> URL:
    """A URL as it is written; only blanks and what is not ASCII are encoded. Raises: ValueError."""
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        return URL(quote(url, safe=_SENT_AS_IT_IS), encoded=True)
    place = re.match("[^/?#]*", rest)
    assert place is not None
    authority = place[0] if place[0].isascii() else URL(f"{scheme}://{place[0]}").raw_authority
    behind = quote(rest[place.end() :], safe=_SENT_AS_IT_IS)
    return URL(f"{scheme}://{authority}{behind}", encoded=True)


def _proxy_of(url: URL) -> str | None:
    """What HTTP_PROXY, HTTPS_PROXY and NO_PROXY say."""
    proxy = getproxies().get(url.scheme)
    if not proxy or proxy_bypass(f"{url.host}:{url.port}"):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _without_end(found: aiohttp.ClientResponse, first: int) -> str:
    """The range to ask for where a server refuses one that goes past the end; "" for the whole body."""
    size = re.fullmatch(r"bytes \*/(\d+)", found.headers.get("Content-Range", ""))
    if size and int(size[1]) <= first:  # there is nothing: it is right
        return found.request_info.headers["Range"]
    return f"bytes={first}-" if first else ""


def _begins_at(found: aiohttp.ClientResponse) -> int:
    """The offset of a body's first byte: a server may know no ranges. Raises: ClientPayloadError for others."""
    if found.status != 206:
        return 0
    said = re.match(r"bytes (\d+)-", found.headers.get("Content-Range", ""))
    asked = re.match(r"bytes=(\d+)-", found.request_info.headers.get("Range", ""))
    if said is None or asked is None or said[1] != asked[1]:
        raise aiohttp.ClientPayloadError("the server answers another range than was asked for")
    return int(said[1])


async def _read(content: aiohttp.StreamReader, skip: int, size: int | None) -> bytes:
    """`size` bytes behind the first `skip`; the rest is not read."""
    kept = bytearray()
    async for piece in content.iter_chunked(PIECE_BYTES):
        dropped = min(skip, len(piece))
        skip -= dropped
        kept += piece[dropped:]
        if size is not None and len(kept) >= size:
            return bytes(kept[:size])
    return bytes(kept)
