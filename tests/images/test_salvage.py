"""Files that decoders refuse although all their pixels are there are images; those that lack some are not."""

import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from pipeline.errors import ErrorCode, RowError
from pipeline.images import salvage
from pipeline.images.decode import Decoded, decode
from pipeline.models.processor import read_preprocessing
from tests.support.making import decode_options, encoded, photo
from tests.support.odd.pngs import MAGIC, chunk

STEPS = read_preprocessing({"image_processor_type": "ViTImageProcessor", "size": 32}, "m")
LONG = 2_000_000


def decoded(data: bytes, **settings: Any) -> Decoded:
    return decode(data, STEPS, decode_options(**settings))


def same(found: Decoded, data: bytes) -> bool:
    return bool((found.pixels == decoded(data).pixels).all())


def png(*chunks: bytes, behind: tuple[bytes, ...] = ()) -> bytes:
    """A PNG of a photo, with these chunks before and behind its pixels."""
    plain = encoded(photo(60, 40))
    start = plain.index(b"IDAT") - 4
    return plain[:start] + b"".join(chunks) + plain[start:-12] + b"".join(behind) + plain[-12:]


def packed(size: int) -> bytes:
    return zlib.compress(b"x" * size)


ZTXT = chunk(b"zTXt", b"workflow\0\0" + packed(LONG))
ITXT = chunk(b"iTXt", b"workflow\0\1\0en\0\0" + packed(LONG))
PROFILE = chunk(b"iCCP", b"a profile\0\0" + packed(LONG))
LONG_TEXTS = {
    "zTXt": png(ZTXT),
    "iTXt": png(ITXT),
    "iCCP": png(PROFILE),
    "behind the pixels": png(behind=(ZTXT,)),
    "all of them": png(ZTXT, ITXT, PROFILE, behind=(ZTXT, ITXT)),
    "many that are long together": png(*[chunk(b"zTXt", b"k%d\0\0" % n + packed(1 << 20)) for n in range(70)]),
    "plain text": png(*[chunk(b"tEXt", b"k%d\0" % n + b"x" * 1_500_000) for n in range(48)]),
    "a bomb": png(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(100_000_000)))),
    "a name that Pillow uses itself": png(chunk(b"tEXt", b"transparency\0yes")),
}


@pytest.mark.parametrize("kind", LONG_TEXTS)
def test_a_png_with_long_text_is_an_image(kind: str) -> None:
    found = decoded(LONG_TEXTS[kind], max_bytes=100_000_000)
    assert found.notes == ("long_text_left_out",)
    assert same(found, png())


def test_a_png_as_pillow_writes_its_text_is_an_image() -> None:
    info = PngInfo()
    info.add_text("workflow", "x" * LONG, zip=True)
    assert decoded(encoded(photo(60, 40), pnginfo=info)).notes == ("long_text_left_out",)


def test_short_text_stays_and_with_it_the_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decoded(png(chunk(b"eXIf", exif.tobytes()[6:]), chunk(b"tEXt", b"title\0a cat"), ZTXT))
    assert found.notes == ("long_text_left_out", "exif_orientation")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decoded(encoded(photo(60, 40), icc_profile=profile)).notes == ()
    assert salvage.without_long_text(encoded(photo(60, 40), icc_profile=profile)) is None


def test_a_png_with_long_text_and_damage_keeps_its_code() -> None:
    whole = png(ZTXT)
    for data, code in ((whole[:-400], ErrorCode.TRUNCATED), (whole.replace(b"IDAT", b"IDOT"), ErrorCode.CORRUPT)):
        with pytest.raises(RowError) as caught:
            decoded(data)
        assert caught.value.code is code


def test_thousands_of_bombs_are_not_all_unpacked() -> None:
    bomb = chunk(b"zTXt", b"k\0\0" + packed(1_100_000))
    started = time.perf_counter()
    assert decoded(png(*[bomb] * 10_000)).notes == ("long_text_left_out",)
    assert time.perf_counter() - started < 5


def test_the_salvage_of_a_png_holds_little_more_than_its_file() -> None:
    bomb = LONG_TEXTS["a bomb"]
    lean = salvage.without_long_text(bomb)
    assert lean is not None
    assert len(lean) < len(bomb)
    assert salvage.without_long_text(MAGIC + struct.pack(">I", 1 << 31) + b"zTXt") is None


KINDS: dict[str, bytes] = {
    "baseline": encoded(photo(300, 200), "JPEG"),
    "progressive": encoded(photo(300, 200), "JPEG", progressive=True),
    "optimised": encoded(photo(300, 200), "JPEG", optimize=True),
    "restart markers": encoded(photo(300, 200), "JPEG", restart_marker_blocks=3),
    "gray": encoded(photo(300, 200).convert("L"), "JPEG"),
    "cmyk": encoded(photo(300, 200).convert("CMYK"), "JPEG"),
    "thumbnail inside": encoded(photo(300, 200), "JPEG", exif=b"Exif\0\0" + encoded(photo(20, 20), "JPEG")),
}


@pytest.mark.parametrize("policy", ["error", "pad"])
@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_without_its_end_marker_has_all_its_pixels(kind: str, missing: int, policy: str) -> None:
    found = decoded(KINDS[kind][:-missing], truncated=policy)
    assert same(found, KINDS[kind])
    assert found.notes[0] == "no_end_marker"
    assert "truncated_padded" not in found.notes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_jpeg_that_lacks_pixels_is_truncated(kind: str, share: float) -> None:
    cut = KINDS[kind][: int(len(KINDS[kind]) * share)]
    with pytest.raises(RowError) as caught:
        decoded(cut)
    assert caught.value.code is ErrorCode.TRUNCATED
    assert "truncated_padded" in decoded(cut, truncated="pad").notes


def test_a_progressive_jpeg_that_lacks_whole_scans_is_truncated() -> None:
    data = KINDS["progressive"]
    scans = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for scan in scans[1:]:
        tables = data.rfind(b"\xff\xc4", 0, scan)
        cut = data[: tables if tables > scans[0] else scan]
        with pytest.raises(RowError) as caught:
            decoded(cut)
        assert caught.value.code is ErrorCode.TRUNCATED


def test_a_jpeg_at_a_smaller_scale_needs_no_end_marker_either() -> None:
    found = decoded(KINDS["baseline"][:-2], fast=True)
    assert found.notes == ("no_end_marker", "dct_scaled")
    assert np.abs(found.pixels.astype(int) - decoded(KINDS["baseline"], fast=True).pixels).max() == 0


def test_a_huge_jpeg_without_an_end_is_refused_by_its_header() -> None:
    cut = bytearray(KINDS["baseline"][:-2])
    frame = cut.index(b"\xff\xc0")
    cut[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(RowError) as caught:
        decoded(bytes(cut))
    assert caught.value.code is ErrorCode.TOO_MANY_PIXELS
