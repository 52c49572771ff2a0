"""`data:` URIs (RFC 2397), which hold the image itself as text. It opens nothing.

Outputs and messages never show this text, which is as long as the image. They show its hash instead.
"""

import base64
import hashlib
import re
from urllib.parse import unquote_to_bytes

_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]{1,127}/[\w!#$&^.+-]{1,127}", re.ASCII)
HASHED = r"data:[^,;]+;sha256=[0-9a-f]{64}"
"""A regular expression for the texts that replace `data:` URIs in outputs and messages."""
_BASE64 = re.compile(r";[ ]*base64[ ]*$", re.IGNORECASE)
DEFAULT_TYPE = "text/plain"
"""The media type of a URI that names none."""


def content(uri: str) -> bytes:
    """Return the bytes in a `data:` URI. Raises: ValueError for a malformed one."""
    head, comma, text = uri[5:].partition(",")
    if not comma:
        raise ValueError("a data: URI needs a comma before its data")
    data = unquote_to_bytes(text.partition("#")[0])
    if not _BASE64.search(head):
        return data
    data = b"".join(data.split())
    # Like browsers, accept missing padding. The URL-safe alphabet is another encoding, so it is refused.
    return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)


def hashed(uri: str) -> str:
    """Return `data:<media type>;sha256=<hash>`, with the hash of the whole URI as UTF-8.

    Return a text that already has this form unchanged.
    """
    if re.fullmatch(HASHED, uri):
        return uri
    named = uri[5:].partition(",")[0].partition(";")[0].strip()
    media_type = named if _MEDIA_TYPE.fullmatch(named) else DEFAULT_TYPE
    return f"data:{media_type};sha256={hashlib.sha256(uri.encode('utf-8', 'surrogatepass')).hexdigest()}"
