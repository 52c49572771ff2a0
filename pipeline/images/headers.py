"""Whether an undecodable file ends too early, by the structure of its format. It decodes nothing."""

import struct
from collections.abc import Callable, Iterator

from pipeline.images.jpeg_segments import START_OF_SCAN, segment_at


def is_image(data: bytes) -> bool:
    """Whether a file begins like an image of a common format."""
    return _kind(data) is not None


def ends_early(data: bytes) -> bool:
    """Whether a file of a common image format is shorter than its own structure says."""
    try:
        check = _ENDS_EARLY.get(_kind(data) or "")
        return check is not None and check(data)
    except (struct.error, IndexError):  # the file ends within the field that was read
        return True


def _kind(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] in (b"WEBP", b""):
        return "webp"
    if data[4:8] == b"ftyp":
        heif = data[8:11] in (b"hei", b"hev", b"msf") and b"meta" in data[:4096]
        return "boxes" if heif or data[8:12] in (b"avif", b"avis", b"mif1", b"") else None
    return next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)


_MAGIC = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"BM": "bmp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"\0\0\0\x0cjP  \r\n\x87\n": "boxes",
    b"\xff\x4f\xff\x51": "codestream",
}


def _jpeg(data: bytes) -> bool:
    """No end-of-image marker behind the first start of scan, or behind the place where headers are damaged."""
    at = 2
    while True:
        found = segment_at(data, at)
        at = found.end if found else at
        if found is None or found.marker == START_OF_SCAN:
            return data.find(b"\xff\xd9", at) < 0


def _png(data: bytes) -> bool:
    at = 8
    while True:
        length, name = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if name == b"IEND" or at > len(data):
            return bool(at > len(data))


def _boxes(data: bytes) -> bool:
    """ISO base media boxes (AVIF, HEIC), or those of JPEG 2000, where the code stream may be the last box."""
    at = 0
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if length == 1:
            (length,) = struct.unpack_from(">8xQ", data, at)
        if name == b"jp2c" and (length == 0 or at + length >= len(data)):
            return _codestream(data) or at + length > len(data)
        if length < 8:  # 0: to the end of the file; others are invalid
            return False
        at += length
    return at > len(data)


def _codestream(data: bytes) -> bool:
    return not data.endswith(b"\xff\xd9")


def _tiff(data: bytes) -> bool:
    """The first directory, or a strip or tile that it names, lies beyond the end of the file."""
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "4xI", data)
    (count,) = struct.unpack_from(order + "H", data, directory)
    tags = {tag: values for tag, values in _tags(data, order, directory + 2, count)}
    for offsets, lengths in ((273, 279), (324, 325)):
        ends = [sum(pair) for pair in zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False)]
        if ends and max(ends) > len(data):
            return True
    return False


def _tags(data: bytes, order: str, at: int, count: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the integer tags of a TIFF directory, with their values."""
    for entry in range(at, at + 12 * count, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", data, entry)
        letter = {3: "H", 4: "I"}.get(kind)
        if letter is not None and values <= len(data):
            layout = struct.Struct(f"{order}{values}{letter}")
            (place,) = struct.unpack_from(order + "I", data, entry + 8)
            yield tag, layout.unpack_from(data, entry + 8 if layout.size <= 4 else place)


_ENDS_EARLY: dict[str, Callable[[bytes], bool]] = {
    "jpeg": _jpeg,
    "png": _png,
    "gif": lambda data: not data.rstrip(b"\0").endswith(b";"),
    "bmp": lambda data: int(struct.unpack_from("<2xI", data)[0]) > len(data),
    "webp": lambda data: int(struct.unpack_from("<4xI", data)[0]) + 8 > len(data),
    "boxes": _boxes,
    "codestream": _codestream,
    "tiff": _tiff,
}
