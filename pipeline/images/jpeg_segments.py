"""The marker segments of a JPEG file (ITU-T T.81, annex B), one at a time. It decodes nothing."""

import re
import struct
from dataclasses import dataclass

START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""Markers of frame headers: baseline 0xC0 to the differential ones, and 0xF7 of JPEG-LS."""

_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})
"""Markers without a length."""
_MARKER = re.compile(rb"\xff+")
"""A marker may begin with any number of fill bytes."""


@dataclass(frozen=True)
class Segment:
    """A marker, where the bytes after its length start, and where the segment ends."""

    marker: int
    start: int
    end: int


def segment_at(data: bytes, at: int) -> Segment | None:
    """Read the segment at a place; None if there is no marker, as in the zeros of a file that was not all written.

    Raises: IndexError, struct.error if the data ends before the segment's length. Its body may be cut.
    """
    found = _MARKER.match(data, at)
    if found is None:
        data[at]  # raises at the end
        return None
    marker, at = data[found.end()], found.end() + 1
    if marker in _ALONE:
        return Segment(marker, at, at)
    (length,) = struct.unpack_from(">H", data, at)
    return Segment(marker, at + 2, at + length) if length >= 2 else None
