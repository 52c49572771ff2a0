"""fsspec's HTTP filesystem, with exact byte ranges, and with URLs that are sent as they are written.

fsspec reads whole bodies, even if it has requested a range. This filesystem keeps no more than the range, checks
that the response is the range that it requested, and gives up on a server that sends too slowly. It only uses GET:
a presigned URL allows no other method. It takes the proxies from the environment, and nothing else, so no password
from ~/.netrc reaches the host of an image.
"""

import io
import re
import string
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote
from urllib.request import getproxies, proxy_bypass

import aiohttp
from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem
from fsspec.spec import AbstractBufferedFile
from yarl import URL

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
"""Longest pause between two pieces of a body."""
TOTAL_TIMEOUT_S = 120.0
"""Limit for one request: 400 kB/s for an image of the default `decode.max_bytes`."""
REDIRECTS = 5
PIECE_BYTES = 1 << 18
REASON_BYTES = 4096
"""Bytes to read from the body of an error response, which may hold S3's error code."""

TIMEOUT = aiohttp.ClientTimeout(total=TOTAL_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)

_MOVED = (301, 302, 303, 307, 308)
_GONE = (404, 410)
_PAST_THE_END = 416
_KEPT_CHARACTERS = string.punctuation
"""Characters of a URL that are neither encoded nor decoded, since that would break a signature."""
_S3_CODE = re.compile(rb"<Code>(\w{1,64})</Code>")


class RangedHTTP(HTTPFileSystem):  # type: ignore[misc]
    """An HTTP filesystem whose `cat_file(url, start, end)` returns these bytes only, or fewer at the end."""

    def encode_url(self, url: str) -> URL:
        return exact_url(url)

    async def set_session(self) -> "_Session":
        return _Session(await super().set_session())

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Return bytes `start` to `end` of a body.

        Raises: FileNotFoundError, aiohttp.ClientError, TimeoutError; ValueError for an offset from the end.
        """
        first = start or 0
        if first < 0 or (end is not None and end < 0):
            raise ValueError("a range is counted from the start")
        if end is not None and end <= first:
            return b""
        requested = f"bytes={first}-{'' if end is None else end - 1}" if first or end is not None else None
        while True:
            async with await self._send_get(url, requested) as response:
                refused = response.status == _PAST_THE_END and requested
                retry = _range_to_retry(response, first) if refused else None
                if retry is None or retry == requested:
                    await _require_ok(response, url)
                    skip = first - _body_offset(response)
                    return await _read(response.content, skip, None if end is None else end - first)
            requested = retry or None

    async def _send_get(self, url: str, requested: str | None) -> aiohttp.ClientResponse:
        """Send a GET request, follow redirects, and return the response. Raises: aiohttp.ClientError."""
        # In a compressed body, offsets differ.
        headers = {**self.kwargs.get("headers", {}), "Accept-Encoding": "identity"}
        if requested:
            headers["Range"] = requested
        session, here = await self.set_session(), exact_url(url)
        for _ in range(REDIRECTS):
            response: aiohttp.ClientResponse = await session.get(here, headers=headers, allow_redirects=False)
            to = response.headers.get("Location") if response.status in _MOVED else None
            if to is None:
                return response
            response.release()
            here = here.join(exact_url(to))
            if here.scheme not in ("http", "https"):
                raise aiohttp.NonHttpUrlRedirectClientError(here)
        raise aiohttp.TooManyRedirects(response.request_info, (response,), status=response.status)

    async def _info(self, url: str, **kwargs: Any) -> dict[str, Any]:
        """Return `size` in bytes, and whether the server supports ranges (`partial`). Raises: like `_cat_file`."""
        async with await self._send_get(url, "bytes=0-0") as response:
            size = _total_bytes(response)
            if size is None:
                await _require_ok(response, url)
                size = sum([len(piece) async for piece in response.content.iter_chunked(PIECE_BYTES)])
            kind = response.headers.get("Content-Type", "").partition(";")[0]
            facts = {"mimetype": kind, "partial": response.status == 206, "mtime": _last_modified(response)}
        return {"name": url, "size": size, "type": "file", **facts}

    async def _exists(self, path: str, strict: bool = False, **kwargs: Any) -> bool:
        """Tell whether a file exists. Raises: aiohttp.ClientError if the server does not say, as with 403."""
        async with await self._send_get(path, "bytes=0-0") as response:
            if response.status in _GONE:
                return False
            if response.status != _PAST_THE_END:  # it is there, and empty
                await _require_ok(response, path)
            return True

    async def _isdir(self, path: str) -> bool:
        """Tell whether this is a page of links. A URL with a query is always one object."""
        return "?" not in path and bool(await super()._isdir(path))

    def modified(self, path: str) -> datetime:
        """Return the time of the last change, which DuckDB asks for; 1970 if the server does not say."""
        found: datetime | None = self.info(path)["mtime"]
        return found or datetime.fromtimestamp(0, UTC)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if mode != "rb":
            raise NotImplementedError
        info = self.info(path)
        if not info["partial"]:  # each range would cost a download from the start of the body
            return io.BytesIO(self.cat_file(path))
        return _File(self, path, size=info["size"], block_size=kwargs.get("block_size") or self.block_size)


class _File(AbstractBufferedFile):  # type: ignore[misc]
    """A file that is read in ranges."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(sync(self.fs.loop, self.fs._cat_file, self.path, start, end))


class _Session:
    """An aiohttp session that uses the proxies of the environment."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    def get(self, url: URL, **options: Any) -> Any:
        return self._session.get(url, proxy=_proxy_of(url), **options)


def exact_url(url: str) -> URL:
    """Return a URL as it is written; encode only blanks and characters beyond ASCII. Raises: ValueError."""
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        return URL(quote(url, safe=_KEPT_CHARACTERS), encoded=True)
    place = re.match("[^/?#]*", rest)
    assert place is not None
    authority = place[0] if place[0].isascii() else URL(f"{scheme}://{place[0]}").raw_authority
    behind = quote(rest[place.end() :], safe=_KEPT_CHARACTERS)
    return URL(f"{scheme}://{authority}{behind}", encoded=True)


def _proxy_of(url: URL) -> str | None:
    """Return the proxy for a URL, by HTTP_PROXY, HTTPS_PROXY and NO_PROXY; None for a direct connection."""
    proxy = getproxies().get(url.scheme)
    if not proxy or proxy_bypass(f"{url.host}:{url.port}"):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


async def _require_ok(response: aiohttp.ClientResponse, url: str) -> None:
    """Raise an error for an error response: FileNotFoundError or ClientResponseError.

    The message of a ClientResponseError is S3's error code if the body has one.
    """
    if response.status in _GONE:
        raise FileNotFoundError(url)
    if response.status < 400:
        return
    code = _S3_CODE.search(await response.content.read(REASON_BYTES))
    message = code[1].decode() if code else response.reason or ""
    raise aiohttp.ClientResponseError(
        response.request_info, response.history, status=response.status, message=message, headers=response.headers
    )


def _total_bytes(response: aiohttp.ClientResponse) -> int | None:
    """Return the size of the whole body in bytes, from the response to a request for its first byte.

    Return None if the headers do not tell it.
    """
    said = re.fullmatch(r"bytes (?:0-0|\*)/(\d+)", response.headers.get("Content-Range", ""))
    if said and response.status in (206, _PAST_THE_END):
        return int(said[1])
    if response.status == _PAST_THE_END:  # there is not even a first byte
        return 0
    return response.content_length if response.status == 200 else None


def _last_modified(response: aiohttp.ClientResponse) -> datetime | None:
    with suppress(ValueError):
        return parsedate_to_datetime(response.headers.get("Last-Modified", ""))
    return None


def _range_to_retry(response: aiohttp.ClientResponse, first: int) -> str:
    """Return the range to request after a server has refused one that ends past the body; "" for all of it."""
    size = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
    if size and int(size[1]) <= first:  # the range starts past the end: the server is right
        return response.request_info.headers["Range"]
    return f"bytes={first}-" if first else ""


def _body_offset(response: aiohttp.ClientResponse) -> int:
    """Return the offset of a body's first byte: 0 if the server does not support ranges.

    Raises: ClientPayloadError if the server returned another range than the requested one.
    """
    if response.status != 206:
        return 0
    said = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    requested = re.match(r"bytes=(\d+)-", response.request_info.headers.get("Range", ""))
    if said is None or requested is None or said[1] != requested[1]:
        raise aiohttp.ClientPayloadError("the server returned another range than the requested one")
    return int(said[1])


async def _read(content: aiohttp.StreamReader, skip: int, size: int | None) -> bytes:
    """Return `size` bytes after the first `skip`, and do not read the rest."""
    kept = bytearray()
    async for piece in content.iter_chunked(PIECE_BYTES):
        dropped = min(skip, len(piece))
        skip -= dropped
        kept += piece[dropped:]
        if size is not None and len(kept) >= size:
            return bytes(kept[:size])
    return bytes(kept)
