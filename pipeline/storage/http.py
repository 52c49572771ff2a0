"""fsspec's HTTP filesystem, with ranges that hold whatever the server does, and URLs sent as they are written.

fsspec reads whole bodies, also those that answer a request for a range. Here never more than the range is kept,
the answer is checked to be what was asked for, and a server that drips is left. It asks only by GET, which is all
that a presigned URL allows. Proxies are those of the environment; nothing else is taken from it, so that no
password of ~/.netrc reaches an image's host.
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
"""Between two pieces of a body."""
TOTAL_TIMEOUT_S = 120.0
"""For one request: at the default `decode.max_bytes`, 400 kB/s."""
REDIRECTS = 5
PIECE_BYTES = 1 << 18
REASON_BYTES = 4096
"""Of a refusal's body: S3's error code is in there."""

TIMEOUT = aiohttp.ClientTimeout(total=TOTAL_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)

_MOVED = (301, 302, 303, 307, 308)
_GONE = (404, 410)
_PAST_THE_END = 416
_SENT_AS_IT_IS = string.punctuation
"""Of a URL: encoding or decoding any of these would break a signature. Letters and digits stay anyway."""


_S3_CODE = re.compile(rb"<Code>(\w{1,64})</Code>")


class RangedHTTP(HTTPFileSystem):  # type: ignore[misc]
    """`cat_file(url, start, end)` gives exactly those bytes of the body, or fewer where it ends."""

    def encode_url(self, url: str) -> URL:
        return exactly(url)

    async def set_session(self) -> "_Session":
        return _Session(await super().set_session())

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
                    await _require_ok(found, url)
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
            found: aiohttp.ClientResponse = await session.get(here, headers=headers, allow_redirects=False)
            to = found.headers.get("Location") if found.status in _MOVED else None
            if to is None:
                return found
            found.release()
            here = here.join(exactly(to))
            if here.scheme not in ("http", "https"):
                raise aiohttp.NonHttpUrlRedirectClientError(here)
        raise aiohttp.TooManyRedirects(found.request_info, (found,), status=found.status)

    async def _info(self, url: str, **kwargs: Any) -> dict[str, Any]:
        """`size` in bytes, and whether the server knows ranges (`partial`). Raises: like `_cat_file`."""
        async with await self._answer(url, "bytes=0-0") as found:
            size = _size_by(found)
            if size is None:
                await _require_ok(found, url)
                size = sum([len(piece) async for piece in found.content.iter_chunked(PIECE_BYTES)])
            kind = found.headers.get("Content-Type", "").partition(";")[0]
            facts = {"mimetype": kind, "partial": found.status == 206, "mtime": _written(found)}
        return {"name": url, "size": size, "type": "file", **facts}

    async def _exists(self, path: str, strict: bool = False, **kwargs: Any) -> bool:
        """Raises: aiohttp.ClientError where the server does not say, as for what it denies."""
        async with await self._answer(path, "bytes=0-0") as found:
            if found.status in _GONE:
                return False
            if found.status != _PAST_THE_END:  # it is there, and empty
                await _require_ok(found, path)
            return True

    async def _isdir(self, path: str) -> bool:
        """Whether it is a page of links. What has a query is one object."""
        return "?" not in path and bool(await super()._isdir(path))

    def modified(self, path: str) -> datetime:
        """When a body was written last, for DuckDB, which asks; 1970 if its server does not say."""
        found: datetime | None = self.info(path)["mtime"]
        return found or datetime.fromtimestamp(0, UTC)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if mode != "rb":
            raise NotImplementedError
        info = self.info(path)
        if not info["partial"]:  # each range would be read from the body's start
            return io.BytesIO(self.cat_file(path))
        return _File(self, path, size=info["size"], block_size=kwargs.get("block_size") or self.block_size)


class _File(AbstractBufferedFile):  # type: ignore[misc]
    """A file that is read by ranges."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(sync(self.fs.loop, self.fs._cat_file, self.path, start, end))


class _Session:
    """An aiohttp session whose requests go through the environment's proxies."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    def get(self, url: URL, **options: Any) -> Any:
        return self._session.get(url, proxy=_proxy_of(url), **options)


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


async def _require_ok(found: aiohttp.ClientResponse, url: str) -> None:
    """Raises: FileNotFoundError; ClientResponseError, whose message is S3's error code if there is one."""
    if found.status in _GONE:
        raise FileNotFoundError(url)
    if found.status < 400:
        return
    code = _S3_CODE.search(await found.content.read(REASON_BYTES))
    message = code[1].decode() if code else found.reason or ""
    raise aiohttp.ClientResponseError(
        found.request_info, found.history, status=found.status, message=message, headers=found.headers
    )


def _size_by(found: aiohttp.ClientResponse) -> int | None:
    """The size of the whole body, by the headers of the answer to a request for its first byte."""
    said = re.fullmatch(r"bytes (?:0-0|\*)/(\d+)", found.headers.get("Content-Range", ""))
    if said and found.status in (206, _PAST_THE_END):
        return int(said[1])
    if found.status == _PAST_THE_END:  # even the first byte
        return 0
    return found.content_length if found.status == 200 else None


def _written(found: aiohttp.ClientResponse) -> datetime | None:
    with suppress(ValueError):
        return parsedate_to_datetime(found.headers.get("Last-Modified", ""))
    return None


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
