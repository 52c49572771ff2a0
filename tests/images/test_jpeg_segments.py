"""Segments of a JPEG are found one by one; damaged headers end the walk at once."""

import struct
import time

import pytest

from pipeline.images import headers, salvage, variants
from pipeline.images.jpeg_segments import START_OF_SCAN, Segment, segment_at
from tests.support.making import encoded, photo

JPEG = encoded(photo(60, 40), "JPEG")


def test_the_segments_of_a_jpeg_lead_to_its_scan() -> None:
    at, markers = 2, []
    while (segment := segment_at(JPEG, at)) and segment.marker != START_OF_SCAN:
        markers.append(segment.marker)
        at = segment.end
    assert segment is not None
    assert markers[0] == 0xE0
    assert set(markers) <= {0xE0, 0xDB, 0xC0, 0xC4}


def test_fill_bytes_belong_to_the_marker_behind_them() -> None:
    assert segment_at(b"\xff\xff\xff\xfe\0\4ab", 0) == Segment(0xFE, 6, 8)


@pytest.mark.parametrize("data", [b"\0\0\0\0", b"\xff\xfe\0\1", b"ab"])
def test_where_no_segment_begins_there_is_none(data: bytes) -> None:
    assert segment_at(data, 0) is None


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xfe", b"\xff\xfe\0"])
def test_data_that_ends_in_a_segments_head_is_an_error(data: bytes) -> None:
    with pytest.raises((IndexError, struct.error)):
        segment_at(data, 0)


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_a_header_that_was_never_written_costs_no_time(fill: bytes) -> None:
    data = JPEG[:100] + fill * (20 << 20)
    begun_s = time.process_time()
    assert headers.ends_early(data)
    assert salvage.with_end(data) is None
    assert not variants.is_beyond(OSError("broken"), data)
    assert time.process_time() - begun_s < 1.5
