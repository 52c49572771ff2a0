"""Files that decoders refuse although all pixels are there -> bytes that they accept. It decodes no pixels.

There are two kinds: a PNG with more text or a larger colour profile than Pillow allows, and a JPEG without its end
marker.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from pipeline.images.jpeg_segments import END_OF_IMAGE, START_OF_SCAN, segment_at

LONGEST_TEXT = 1 << 20
"""Most unpacked bytes of a PNG's text or profile: Pillow's own limit."""
ALL_TEXT = 32 << 20
"""Most unpacked bytes of all of them together: half of Pillow's limit. Further ones are not unpacked."""
LONG_TEXT_LEFT_OUT, NO_END_MARKER = "long_text_left_out", "no_end_marker"

_END = b"\xff\xd9"
_PNG = b"\x89PNG\r\n\x1a\n"
_TEXT = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_KEYWORDS_OF_PILLOW = (b"transparency", b"bbox", b"interlace", b"gamma", b"default_image", b"icc_profile")
"""Pillow stores texts in the same dict as its own facts: a text of one of these names would pass for a fact."""
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A marker in entropy-coded data: neither a stuffed byte, a restart nor a fill byte."""


def without_long_text(data: bytes) -> bytes | None:
    """Return a PNG without the text and profiles that Pillow refuses; None if it has none, or is not a PNG."""
    if not data.startswith(_PNG):
        return None
    kept, unpacked = bytearray(_PNG), 0
    for name, chunk in _chunks(data):
        if name in _TEXT:
            size = _unpacked(name, chunk[8:-4]) if unpacked < ALL_TEXT else 0
            unpacked += size
            if size > LONGEST_TEXT or unpacked >= ALL_TEXT or _is_misread(name, chunk):
                continue
        kept += chunk
    return bytes(kept) if len(kept) < len(data) else None


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield every chunk with its name, whole, to the end of the data, however damaged."""
    at = len(_PNG)
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        yield name, data[at : at + 12 + length]
        at += 12 + length
    if at < len(data):
        yield b"", data[at:]


def _unpacked(name: bytes, body: bytes) -> int:
    """Return the unpacked size of a text or profile in bytes, at most `LONGEST_TEXT` + 1."""
    packed = {b"zTXt": r"[^\0]*\0\0", b"iCCP": r"[^\0]*\0\0", b"iTXt": r"[^\0]*\0\x01\0[^\0]*\0[^\0]*\0"}.get(name)
    head = re.match(packed.encode(), body) if packed else None
    if head is None:
        return len(body)
    try:
        return len(zlib.decompressobj().decompress(body[head.end() :], LONGEST_TEXT + 1))
    except zlib.error:  # Pillow ignores it
        return 0


def _is_misread(name: bytes, chunk: bytes) -> bool:
    return name in _TEXT[:3] and chunk[8:].partition(b"\0")[0] in _KEYWORDS_OF_PILLOW


def with_end(data: bytes) -> bytes | None:
    """Return a JPEG with the end marker that it lacks; None if it has one, lacks whole scans, or is not a JPEG.

    Only decoding shows whether the last scan is complete.
    """
    try:
        return data + _END if data.startswith(b"\xff\xd8\xff") and _lacks_only_its_end(data) else None
    except (struct.error, IndexError):  # it ends in a header
        return None


def _lacks_only_its_end(data: bytes) -> bool:
    """Walk through headers and scans. Raises: struct.error, IndexError."""
    at, components, exact = 2, 0, dict[int, set[int]]()
    while (segment := segment_at(data, at)) and segment.marker != END_OF_IMAGE:
        at, body = segment.end, data[segment.start : segment.end]
        if segment.marker in (0xC0, 0xC1, 0xC2):
            components = body[5]
        if segment.marker == START_OF_SCAN:
            _note_scan(body, exact)
            found = _MARKER.search(data, at)
            if found is None:
                return len(exact) == components and all(len(known) == 64 for known in exact.values())
            at = found.start()
    return False


def _note_scan(body: bytes, exact: dict[int, set[int]]) -> None:
    """Note which coefficients of which components are exact after this scan: a progressive JPEG has many scans."""
    first, last, precision = body[1 + 2 * body[0] : 4 + 2 * body[0]]
    for number in range(body[0]):
        known = exact.setdefault(body[1 + 2 * number], set())
        if precision & 15 == 0:
            known.update(range(first, last + 1))
