"""fsspec's HTTP filesystem, with ranges that hold whatever the server does.

fsspec reads whole bodies, also those that answer a request for a range. Here never more than the range is kept,
the answer is checked to be what was asked for, and a server that drips is left.
"""

import re
from typing import Any

import aiohttp
from fsspec.implementations.http import HTTPFileSystem

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
"""Between two pieces of a body."""
TOTAL_TIMEOUT_S = 120.0
"""For one request: at the default `decode.max_bytes`, 400 kB/s."""
REDIRECTS = 5
PIECE_BYTES = 1 << 18

TIMEOUT = aiohttp.ClientTimeout(total=TOTAL_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)


class RangedHTTP(HTTPFileSystem):  # type: ignore[misc]
    """`cat_file(url, start, end)` gives exactly those bytes of the body, or fewer where it ends."""

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Raises: FileNotFoundError, aiohttp.ClientError, TimeoutError; ValueError for an offset from the end."""
        first = start or 0
        if first < 0 or (end is not None and end < 0):
            raise ValueError("a range is counted from the start")
        if end is not None and end <= first:
            return b""
        # A compressed body has other offsets.
        headers = {**self.kwargs.get("headers", {}), **kwargs.get("headers", {}), "Accept-Encoding": "identity"}
        if first or end is not None:
            headers["Range"] = f"bytes={first}-{'' if end is None else end - 1}"
        session = await self.set_session()
        async with session.get(self.encode_url(url), headers=headers, max_redirects=REDIRECTS) as found:
            self._raise_not_found_for_status(found, url)
            skip = first - _begins_at(found)
            return await _read(found.content, skip, None if end is None else end - first)


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
