"""Files that decoders refuse although all their pixels are there -> bytes that they take. It decodes no pixels.

A PNG with long text or a large colour profile, against which Pillow guards itself; a JPEG without its end.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from pipeline.images.jpeg_segments import END_OF_IMAGE, START_OF_SCAN, segment_at

LONGEST_TEXT = 1 << 20
"""Bytes of a PNG's text or profile, unpacked: what Pillow takes."""
ALL_TEXT = 32 << 20
"""Bytes of all of them together, half of what Pillow takes; what follows is not even unpacked."""
LONG_TEXT_LEFT_OUT, NO_END_MARKER = "long_text_left_out", "no_end_marker"

_END = b"\xff\xd9"
_PNG = b"\x89PNG\r\n\x1a\n"
_TEXT = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_KEYWORDS_OF_PILLOW = (b"transparency", b"bbox", b"interlace", b"gamma", b"default_image", b"icc_profile")
"""Pillow keeps texts beside facts of its own: one of these names would be taken for a fact."""
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""In entropy-coded data: all but a stuffed byte, a restart and a fill byte."""


def without_long_text(data: bytes) -> bytes | None:
    """A PNG without the text and profiles that Pillow refuses; None if it has none, or is no PNG."""
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
    """Every chunk with its name, whole, to the end of the data, however damaged."""
    at = len(_PNG)
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        yield name, data[at : at + 12 + length]
        at += 12 + length
    if at < len(data):
        yield b"", data[at:]


def _unpacked(name: bytes, body: bytes) -> int:
    """How long a text or profile is, more than `LONGEST_TEXT` if it is longer than that."""
    packed = {b"zTXt": r"[^\0]*\0\0", b"iCCP": r"[^\0]*\0\0", b"iTXt": r"[^\0]*\0\x01\0[^\0]*\0[^\0]*\0"}.get(name)
    head = re.match(packed.encode(), body) if packed else None
    if head is None:
        return len(body)
    try:
        return len(zlib.decompressobj().decompress(body[head.end() :], LONGEST_TEXT + 1))
    except zlib.error:  # Pillow leaves it out by itself
        return 0


def _is_misread(name: bytes, chunk: bytes) -> bool:
    return name in _TEXT[:3] and chunk[8:].partition(b"\0")[0] in _KEYWORDS_OF_PILLOW


def with_end(data: bytes) -> bytes | None:
    """A JPEG with the end marker that it lacks; None if it has one, lacks whole scans, or is no JPEG.

    Whether the last scan is whole, only decoding tells.
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
    """Which coefficients of which components are whole with this scan: a progressive JPEG has many."""
    first, last, precision = body[1 + 2 * body[0] : 4 + 2 * body[0]]
    for number in range(body[0]):
        known = exact.setdefault(body[1 + 2 * number], set())
        if precision & 15 == 0:
            known.update(range(first, last + 1))
