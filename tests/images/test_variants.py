"""Good files that Pillow cannot decode are unsupported, by a message that names them; damaged ones are not."""

import importlib.util
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ErrorCode, RowError
from pipeline.images import decode as decoding
from pipeline.images.decode import decode
from pipeline.images.sandbox import IsolatedDecoder
from pipeline.images.sandbox_processes import Report
from pipeline.models.processor import read_preprocessing
from tests.support.making import decode_options, encoded, photo
from tests.support.odd.pngs import MAGIC, chunk

STEPS = read_preprocessing({"image_processor_type": "ViTImageProcessor", "size": 32}, "m")
UNSUPPORTED, CORRUPT, TRUNCATED = ErrorCode.UNSUPPORTED_FORMAT, ErrorCode.CORRUPT, ErrorCode.TRUNCATED
needs_heif = pytest.mark.skipif(
    importlib.util.find_spec("pillow_heif") is None,
    reason="pillow-heif, the extra lakelens[heif], is not installed",
)


def error_of(data: bytes) -> RowError:
    with pytest.raises(RowError) as caught:
        decode(data, STEPS, decode_options())
    return caught.value


def tiff(bands: int, bits: int, sample: int = 1, *, compression: int = 1, photometric: int = 1) -> bytes:
    """A TIFF of 8x8 zeros in one strip; `sample` 1 is unsigned, 2 signed, 3 float."""
    data = bytes(8 * 8 * bands * bits // 8)
    tags: list[tuple[int, str, list[int]]] = [
        *((256, "H", [8]), (257, "H", [8]), (258, "H", [bits] * bands), (259, "H", [compression])),
        *((262, "H", [photometric]), (273, "I", [0]), (277, "H", [bands]), (278, "H", [8])),
        *((279, "I", [len(data)]), (339, "H", [sample] * bands)),
    ]
    at = 8 + 2 + 12 * len(tags) + 4
    entries, tail = b"", b""
    long = sum(2 * len(values) for _, kind, values in tags if kind == "H" and len(values) > 2)
    for tag, kind, values in tags:
        body = struct.pack(f"<{len(values)}{kind}", *([at + long] if tag == 273 else values))
        if len(body) > 4:
            body, tail = struct.pack("<I", at + len(tail)), tail + body
        entries += struct.pack("<HHI", tag, 3 if kind == "H" else 4, len(values)) + body.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + tail + data


def frame(marker: int, depth: int, components: int) -> bytes:
    """A JPEG that has only this frame's header in place of its own."""
    plain = encoded(photo(60, 40), "JPEG")
    start = plain.index(b"\xff\xc0")
    body = struct.pack(">BHHB", depth, 40, 60, components) + b"\1\x11\0" * components
    return plain[:start] + struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body + plain[start + 19 :]


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + name + body


def bmp(bits: int, compression: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, bits, compression, 64, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 999, 0, 0, 54) + header + bytes(999)


def code_stream(components: int, depth: int, *, capabilities: int = 0) -> bytes:
    """The header of a JPEG 2000 code stream, and its end."""
    sizes = struct.pack(">8IH", 8, 8, 0, 0, 8, 8, 0, 0, components) + bytes([depth - 1, 1, 1]) * components
    body = struct.pack(">HH", 38 + 3 * components, capabilities) + sizes
    return b"\xff\x4f\xff\x51" + body + bytes(99) + b"\xff\xd9"


def dds(fourcc: bytes) -> bytes:
    data = bytearray(encoded(photo(8, 8), "DDS", pixel_format="DXT1"))
    data[84:88] = fourcc
    return bytes(data)


def psd(compression: int) -> bytes:
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 8, 8, 8, 3)
    return header + struct.pack(">III", 0, 0, 0) + struct.pack(">H", compression) + bytes(300)


JXL = b"\0\0\0\x0cJXL \r\n\x87\n" + box(b"ftyp", b"jxl \0\0\0\0jxl ") + bytes(400)
RAW_ROWS = zlib.compress(bytes(40 * 181))[2:-4]  # Apple leaves the frame of zlib out
APPLE = (
    MAGIC
    + chunk(b"CgBI", b"\x50\0\x20\2")
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 60, 40, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", RAW_ROWS)
    + chunk(b"IEND", b"")
)
HEIC = box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", bytes(99)) + box(b"mdat", bytes(999))
GOOD = {
    **{f"tiff of {n} floats": tiff(n, 32, 3) for n in (2, 3, 4, 5)},
    **{f"tiff of 3 times {bits} bits, format {f}": tiff(3, bits, f) for bits, f in ((32, 1), (64, 3), (16, 2))},
    "tiff of doubles": tiff(1, 64, 3),
    "tiff of five bands": tiff(5, 8),
    "big-endian tiff of floats": b"MM\0*"
    + struct.pack(">IH", 8, 4)
    + b"".join(
        struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in ((256, 8), (257, 8), (258, 24), (273, 62))
    )
    + bytes(300),
    "tiff of an unknown compression": tiff(3, 8, compression=34887, photometric=2),
    "tiff of a sensor": tiff(1, 16, photometric=32803),
    "jpeg xl": JXL,
    "jpeg xl code stream": b"\xff\x0a" + bytes(200),
    "lossless jpeg": frame(0xC3, 8, 3),
    "lossless jpeg of 16 bits": frame(0xC3, 16, 1),
    "jpeg of 12 bits": frame(0xC1, 12, 3),
    "jpeg of two components": frame(0xC0, 8, 2),
    "jpeg-ls": frame(0xF7, 8, 3),
    "apple's png": APPLE,
    "bmp with a jpeg in it": bmp(24, 4),
    "bmp of 64 bits": bmp(64, 0),
    "jpeg 2000 of five components": code_stream(5, 8),
    "jpeg 2000 of 24 bits": code_stream(1, 24),
    "high-throughput jpeg 2000": code_stream(3, 8, capabilities=0x4000),
    "dds of another kind": dds(b"ATI3"),
    "psd of 32 bits": psd(0).replace(struct.pack(">HH", 8, 3), struct.pack(">HH", 32, 3)),
    "zipped psd": psd(2),
    "canon's raw": box(b"ftyp", b"crx \0\0\0\1crx isom") + bytes(99),
    "fuji's raw": b"FUJIFILMCCD-RAW 0201" + bytes(99),
    "dicom": bytes(128) + b"DICM" + bytes(99),
    "openexr": b"\x76\x2f\x31\x01" + bytes(99),
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    "svg": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "pdf": b"%PDF-1.7\n",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_that_pillow_cannot_decode_is_unsupported_and_not_damaged(name: str) -> None:
    assert error_of(GOOD[name]).code is UNSUPPORTED


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (JXL, "the file is JPEG XL, which cannot be decoded here"),
        (b"8BPS" + bytes(99), "the file is a Photoshop document, which cannot be decoded here"),
        (tiff(3, 32, 3), "the file is a variant of its format that Pillow cannot decode"),
        (b"no image", "the file is not an image of a known format"),
    ],
)
def test_the_message_says_what_an_unsupported_file_is(data: bytes, what: str) -> None:
    assert error_of(data).message == what


def test_a_compression_that_this_pillow_lacks_is_unsupported_and_damage_in_one_that_it_has_is_not() -> None:
    assert error_of(tiff(3, 8, compression=50001, photometric=2)).code in (UNSUPPORTED, CORRUPT)  # as it was built
    damaged = bytearray(encoded(photo(60, 40), "TIFF", compression="tiff_adobe_deflate"))
    damaged[20:200] = b"\xff" * 180
    assert error_of(bytes(damaged)).code is CORRUPT


DAMAGED = {
    "tiff cut": (tiff(3, 32, 3)[:-99], TRUNCATED),
    "tiff without a size": (
        tiff(3, 8).replace(struct.pack("<HHI", 256, 3, 1), struct.pack("<HHI", 255, 3, 1)),
        CORRUPT,
    ),
    "jpeg of 12 bits that says it is baseline": (frame(0xC0, 12, 3), CORRUPT),
    "bmp of an impossible depth": (bmp(7, 0), CORRUPT),
    "jpeg 2000 that is damaged": (code_stream(3, 8), CORRUPT),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_not_taken_for_a_good_one(name: str) -> None:
    data, code = DAMAGED[name]
    assert error_of(data).code is code


def test_a_heic_without_the_extra_is_unsupported_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "HEIF", False)
    monkeypatch.setattr(decoding, "FORMATS", [name for name in decoding.FORMATS if name != "HEIF"])
    for data in (HEIC, HEIC[:150], HEIC.replace(b"ftypheic", b"ftypmif1")):
        error = error_of(data)
        assert error.code is UNSUPPORTED
        assert error.message == "the file is HEIC, which needs lakelens[heif] to be installed"


@needs_heif
def test_a_heic_is_decoded_in_the_sandbox() -> None:
    image = photo(200, 150)
    data = encoded(image, "HEIF", quality=95)
    decoder = IsolatedDecoder(STEPS, decode_options(max_pixels=1_000_000))
    try:
        files = [data, data[:1000], encoded(Image.new("RGB", (2000, 2000)), "HEIF")]
        found, pixels = decoder.decode(files, len(files))
    finally:
        decoder.close()
    assert found[0] == Report(200, 150, ())
    assert [one.code for one in found[1:] if isinstance(one, RowError)] == [TRUNCATED, ErrorCode.TOO_MANY_PIXELS]
    plain = decode(encoded(image), STEPS, decode_options()).pixels
    assert np.abs(pixels.images[0].astype(int) - plain.astype(int)).max() <= 4


@needs_heif
def test_a_damaged_heic_is_damaged_where_it_can_be_decoded() -> None:
    data = bytearray(encoded(photo(200, 150), "HEIF"))
    start = data.index(b"meta")
    data[start + 8 : start + 100] = b"\xff" * 92
    assert error_of(bytes(data)).code in (CORRUPT, TRUNCATED)
