"""Sound files that this Pillow cannot decode, told from damaged ones by signature and header. No pixels here."""

import io
import re
import struct
from functools import cache

from PIL import Image

from pipeline.images.jpeg_segments import END_OF_IMAGE, FRAMES, START_OF_SCAN, segment_at

HEIC = "HEIC"
CAMERA_RAW = "a camera's raw file"
_SIGNATURES = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\xd8\xff\xf7": "JPEG-LS",
    b"II\xbc": "JPEG XR",
    b"8BPS": "a Photoshop document",
    b"%PDF": "a PDF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?R": "Radiance HDR",
    b"SDPX": "DPX",
    b"XPDS": "DPX",
    b"gimp xcf": "a GIMP image",
    b"AT&TFORM": "DjVu",
    b"BPG\xfb": "BPG",
    b"II+\0": "BigTIFF",
    b"MM\0+": "BigTIFF",
    b"FUJIFILMCCD-RAW": CAMERA_RAW,
    b"IIRO": CAMERA_RAW,
    b"IIRS": CAMERA_RAW,
    b"MMOR": CAMERA_RAW,
    b"IIU\0": CAMERA_RAW,
    b"FOVb": CAMERA_RAW,
    b"\0MRM": CAMERA_RAW,
}
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2"}
_AVIF = {b"avif", b"avis"}
_UNSUPPORTED = re.compile(
    r"unsupported|not supported|unimplemented|not implemented|can(?:no|')t handle"
    r"|(?:de|en)coder \S+ not available|unknown (?:compression|pixel (?:mode|format)|data organi[sz]ation)"
    r"|unable to determine",
    re.IGNORECASE,
)
_NO_SUCH_DEPTH = "Unsupported BMP pixel depth"


def name_of(data: bytes) -> str | None:
    """Name a file's format by its signature, if Pillow may not decode it; otherwise None."""
    if is_heif(data):
        return HEIC
    if data[4:8] == b"ftyp" and data[8:12] == b"crx ":
        return CAMERA_RAW
    if data[128:132] == b"DICM":
        return "DICOM"
    if b"<svg" in data[:1024].lower():
        return "SVG"
    return next((name for magic, name in _SIGNATURES.items() if data.startswith(magic)), None)


def is_heif(data: bytes) -> bool:
    """Whether a file is an HEIF image other than AVIF, such as HEIC."""
    if data[4:8] != b"ftyp":
        return False
    size = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, size, 4))}
    return bool(brands & _HEIF) and not brands & _AVIF


def is_beyond(error: Exception, data: bytes) -> bool:
    """Whether Pillow raised this for a sound file: the error says so, or the header needs what Pillow lacks."""
    if isinstance(error, NotImplementedError):
        return True
    if _UNSUPPORTED.search(str(error)) and _NO_SUCH_DEPTH not in str(error):
        return True
    try:
        return any(check(data) for magic, check in _HEADERS.items() if data.startswith(magic))
    except (struct.error, IndexError):
        return False


def _jpeg(data: bytes) -> bool:
    """Lossless, hierarchical and 12-bit JPEGs, and those with two or more than four components."""
    at = 2
    while (segment := segment_at(data, at)) and segment.marker not in (END_OF_IMAGE, START_OF_SCAN):
        if segment.marker in FRAMES:
            depth, components = data[segment.start], data[segment.start + 5]
            decoded = segment.marker in _DECODED_FRAMES and components in (1, 3, 4)
            decoded = decoded and (segment.marker == 0xC0 or depth != 12)
            return not decoded and segment.end - segment.start == 6 + 3 * components
        at = segment.end
    return False


_DECODED_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)


def _png(data: bytes) -> bool:
    """Apple's own variant, as Xcode writes it."""
    return data[12:16] == b"CgBI"


def _bmp(data: bytes) -> bool:
    """BMPs that hold JPEG, PNG or CMYK, and those of 2 or 64 bits."""
    header, bits, compression = struct.unpack_from("<14xI10xHI", data)
    return header >= 40 and (bits in (2, 64) or compression in (4, 5, 11, 12, 13))


def _tiff(data: bytes) -> bool:
    """TIFFs with a valid directory, but with a compression or pixels that this Pillow cannot open."""
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "4xI", data)
    (count,) = struct.unpack_from(order + "H", data, directory)
    tags = {}
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, values, short = struct.unpack_from(order + "HHIH", data, entry)
        tags[tag] = short if kind == 3 else struct.unpack_from(order + "I", data, entry + 8)[0]
        if kind not in range(1, 14) or not values:
            return False
    if not (tags.get(256) and tags.get(257) and tags.keys() & {273, 324}):
        return False
    if tags.get(262) in _RAW_PIXELS or not _decodes(tags.get(259, 1)):
        return True
    return not _opens(data)


_RAW_PIXELS = (32803, 34892, 34893)
"""Photometric interpretations of raw sensor data."""
_COMPRESSIONS = {
    1: "raw",
    2: "tiff_ccitt",
    3: "group3",
    4: "group4",
    5: "tiff_lzw",
    7: "jpeg",
    8: "tiff_adobe_deflate",
    32773: "packbits",
    32946: "tiff_deflate",
    34925: "lzma",
    50000: "zstd",
    50001: "webp",
}
"""TIFF's compression numbers, and Pillow's names of those that it can write."""
_DECODED_ONLY = (6, 32771, 32809, 34676, 34677)
"""Compressions that libtiff can read but not write."""


@cache
def _decodes(compression: int) -> bool:
    """Whether this Pillow's libtiff has a compression: it can read what it can write."""
    if compression in _DECODED_ONLY:
        return True
    mode = "1" if compression in (2, 3, 4) else "L"
    try:
        Image.new(mode, (16, 16)).save(io.BytesIO(), "TIFF", compression=_COMPRESSIONS[compression])
    except Exception:
        return False
    return True


def _opens(data: bytes) -> bool:
    try:
        Image.open(io.BytesIO(data), formats=("TIFF",)).close()
    except Exception:
        return False
    return True


def _jpeg_2000(data: bytes) -> bool:
    """JPEG 2000 with more than four components, more than 16 bits, signed or subsampled ones, or HTJ2K coding."""
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0:
        return False
    length, capabilities = struct.unpack_from(">4xHH", data, at)
    (count,) = struct.unpack_from(">40xH", data, at)
    sizes = [data[at + 42 + 3 * number :][:3] for number in range(count)]
    odd = any((depth & 0x7F) >= 16 or depth & 0x80 or (x, y) != (1, 1) for depth, x, y in sizes)
    return length == 38 + 3 * count and (count > 4 or odd or bool(capabilities & 0x4000))


def _psd(data: bytes) -> bool:
    """Photoshop documents with zipped pixels: the only ones that Pillow opens but cannot decode."""
    at = 26
    for _ in range(3):  # palette, resources, layers
        (length,) = struct.unpack_from(">I", data, at)
        at += 4 + length
    return bool(struct.unpack_from(">H", data, at)[0] in (2, 3))


_HEADERS = {
    b"8BPS": _psd,
    b"\xff\xd8\xff": _jpeg,
    b"\x89PNG\r\n\x1a\n": _png,
    b"BM": _bmp,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"\0\0\0\x0cjP  ": _jpeg_2000,
    b"\xff\x4f\xff\x51": _jpeg_2000,
}
