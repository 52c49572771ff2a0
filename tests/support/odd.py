"""Odd image files, made by code, and what a person expects of each.

An expectation is an error code; or the size of the upright original, the notes, and the colour where there is one.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from pipeline.errors import ErrorCode
from tests.support.making import encoded, photo

Colour = tuple[int, int, int]
CORRUPT, TRUNCATED = ErrorCode.CORRUPT, ErrorCode.TRUNCATED
UNSUPPORTED, HUGE = ErrorCode.UNSUPPORTED_FORMAT, ErrorCode.TOO_MANY_PIXELS
RED: Colour = (200, 30, 20)
SIZE = (40, 30)


@dataclass(frozen=True)
class Odd:
    """One file: either `code`, or the rest. Colours are compared within `slack` levels."""

    name: str
    data: bytes
    code: ErrorCode | None = None
    size: tuple[int, int] = SIZE
    notes: tuple[str, ...] = ()
    colour: Colour | None = None
    slack: int = 0


def flat(mode: str = "RGB", value: Any = RED, size: tuple[int, int] = SIZE) -> Image.Image:
    """An image of one colour."""
    return Image.new(mode, size, value)


def gray(value: int) -> Colour:
    return value, value, value


def file(image: Image.Image, format_: str, **options: Any) -> bytes:
    return encoded(image, format_, **options)


def everything() -> list[Odd]:
    """The whole corpus."""
    parts = (
        jpegs,
        jpeg_damage,
        exifs,
        pngs,
        png_damage,
        gifs,
        bmps,
        tiffs,
        modern,
        small_formats,
        bombs,
        no_images,
    )
    return [odd for part in parts for odd in part()]


def jpegs() -> Iterator[Odd]:
    """JPEGs that are in order, however unusual."""
    near = {"colour": RED, "slack": 3}
    yield Odd("jpeg baseline", file(flat(), "JPEG", quality=95), **near)
    yield Odd("jpeg progressive", file(flat(), "JPEG", progressive=True, quality=95), **near)
    for subsampling in (0, 1, 2):
        for size in ((41, 31), (8, 8), (17, 3)):
            data = file(flat(size=size), "JPEG", subsampling=subsampling, quality=95)
            yield Odd(f"jpeg subsampling {subsampling} {size}", data, size=size, **near)
    yield Odd("jpeg gray", file(flat("L", 77), "JPEG"), notes=("grayscale",), colour=gray(77), slack=1)
    yield Odd(
        "jpeg cmyk", file(flat("CMYK", (255, 0, 0, 0)), "JPEG"), notes=("cmyk",), colour=(0, 255, 255), slack=2
    )
    yield Odd("jpeg rgb inside", file(flat(), "JPEG", keep_rgb=True, quality=95), **near)
    yield Odd("jpeg restart markers", file(flat(), "JPEG", restart_marker_blocks=1, quality=95), **near)
    yield Odd("jpeg one pixel", file(flat(size=(1, 1)), "JPEG", quality=95), size=(1, 1), **near)
    yield Odd("jpeg thin", file(flat(size=(1, 5000)), "JPEG", quality=95), size=(1, 5000), **near)
    yield Odd("jpeg huge comment", file(flat(), "JPEG", comment=b"c" * 60_000, quality=95), **near)
    yield Odd("jpeg optimised tables", file(flat(), "JPEG", optimize=True, quality=95), **near)
    plain = file(flat(), "JPEG", quality=95)
    yield Odd("jpeg trailing garbage", plain + b"garbage" * 100, **near)
    yield Odd("jpeg twice", plain + plain, **near)
    yield Odd("jpeg padded with zeros", plain + bytes(5000), **near)
    yield Odd("jpeg fill bytes before a marker", plain[:2] + b"\xff\xff" + plain[2:], **near)
    yield Odd("jpeg with a zip behind it", plain + b"PK\3\4" + bytes(50), **near)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield Odd("jpeg icc", file(flat(), "JPEG", icc_profile=profile, quality=95), **near)
    yield Odd("jpeg broken icc", file(flat(), "JPEG", icc_profile=b"no profile" * 50, quality=95), **near)
    yield Odd("jpeg icc in a hundred pieces", file(flat(), "JPEG", icc_profile=b"x" * 700_000, quality=95), **near)
    mpo = file(flat(), "MPO", save_all=True, append_images=[flat(value=(0, 0, 255))], quality=95)
    yield Odd("mpo", mpo, notes=("first_frame",), **near)
    yield Odd("mpo with a cut second picture", mpo[:-60], notes=("first_frame",), **near)


def jpeg_damage() -> Iterator[Odd]:
    """JPEGs that are not."""
    image = file(photo(200, 150), "JPEG")
    start = image.index(b"\xff\xda")
    for share in (0.4, 0.6, 0.9):
        yield Odd(f"jpeg cut at {share}", image[: int(len(image) * share)], TRUNCATED)
    progressive = file(photo(200, 150), "JPEG", progressive=True)
    yield Odd("progressive jpeg cut", progressive[: len(progressive) // 2], TRUNCATED)
    for length in (10, 25, start - 20, start + 2):
        yield Odd(f"jpeg cut in its header at {length}", image[:length], TRUNCATED)
    yield Odd("jpeg of one marker", b"\xff\xd8\xff", TRUNCATED)
    frame = image.index(b"\xff\xc0")
    zero = image[: frame + 5] + struct.pack(">HH", 0, 0) + image[frame + 9 :]
    yield Odd("jpeg of zero pixels", zero, CORRUPT)
    lying = image[: frame + 5] + struct.pack(">HH", 65_500, 65_500) + image[frame + 9 :]
    yield Odd("jpeg that says it is huge", lying, HUGE)
    yield Odd("jpeg of 12 bits", image[: frame + 4] + b"\x0c" + image[frame + 5 :], CORRUPT)
    yield Odd("jpeg of 7 components", image[: frame + 9] + b"\x07" + image[frame + 10 :], CORRUPT)
    tables = image.replace(b"\xff\xdb", b"\xff\xec")
    yield Odd("jpeg without quantisation tables", tables, CORRUPT)
    yield Odd("jpeg header and nothing else", image[:20] + b"\xff\xd9", TRUNCATED)


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    found[0x010F] = "the maker of the camera"
    return found.tobytes()


def exifs() -> Iterator[Odd]:
    """Orientation, read wherever it can be and never fatal."""
    near = {"colour": RED, "slack": 3}
    for orientation in range(1, 9):
        size = SIZE if orientation < 5 else (30, 40)
        notes = () if orientation == 1 else ("exif_orientation",)
        for format_ in ("JPEG", "PNG", "WEBP"):
            options = {"quality": 95} if format_ != "PNG" else {}
            data = file(flat(), format_, exif=exif(orientation), **options)
            yield Odd(f"{format_} orientation {orientation}", data, size=size, notes=notes, **near)
    for orientation in (0, 9, 500):
        yield Odd(f"orientation {orientation}", file(flat(), "JPEG", exif=exif(orientation), quality=95), **near)
    rest = exif(3)
    yield Odd("empty exif", file(flat(), "JPEG", exif=b"Exif\0\0", quality=95), **near)
    yield Odd("exif of garbage", file(flat(), "JPEG", exif=b"Exif\0\0" + b"\xff" * 99, quality=95), **near)
    looped = b"Exif\0\0II*\0\x08\0\0\0\0\0\x08\0\0\0"
    yield Odd("exif that points at itself", file(flat(), "JPEG", exif=looped, quality=95), **near)
    turned = file(flat(), "TIFF", tiffinfo={0x0112: 6})
    yield Odd("tiff orientation", turned, size=(30, 40), notes=("exif_orientation",), colour=RED)
    yield Odd(
        "exif with a long maker",
        file(flat(), "JPEG", exif=rest[:-4] + bytes(60_000), quality=95),
        notes=("exif_orientation",),
        **near,
    )


def chunk(name: bytes, body: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


MAGIC = b"\x89PNG\r\n\x1a\n"


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *extra: bytes, interlace: int = 0) -> bytes:
    """A PNG from its parts; `rows` with the filter bytes."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace)
    return (
        MAGIC
        + chunk(b"IHDR", header)
        + b"".join(extra)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


END = chunk(b"IEND", b"")


def pngs() -> Iterator[Odd]:
    """PNGs of every depth and kind."""
    for depth, value in ((1, 0xFF), (2, 0xFF), (4, 0xFF), (8, 0xFF)):
        row = b"\0" + bytes([value]) * (8 * depth // 8)
        notes = ("1_bit",) if depth == 1 else ("grayscale",)
        yield Odd(
            f"png gray {depth} bits", png(8, 2, depth, 0, row * 2), size=(8, 2), notes=notes, colour=gray(255)
        )
    for depth in (1, 2, 4, 8):
        row = b"\0" + bytes(depth)
        palette = chunk(b"PLTE", bytes(RED) + bytes(3))
        data = png(8, 2, depth, 3, row * 2, palette)
        yield Odd(f"png palette {depth} bits", data, size=(8, 2), notes=("palette",), colour=RED)
    deep = png(2, 1, 16, 0, b"\0" + struct.pack(">HH", 30_000, 30_000))
    yield Odd("png gray 16 bits", deep, size=(2, 1), notes=("16_bit",), colour=gray(117))
    yield Odd(
        "png rgb 16 bits",
        png(1, 1, 16, 2, b"\0" + bytes([200, 9, 30, 9, 20, 9])),
        size=(1, 1),
        colour=RED,
        slack=1,
    )
    half = png(1, 1, 16, 6, b"\0" + bytes([0, 0, 0, 0, 0, 0, 128, 0]))
    yield Odd("png rgba 16 bits", half, size=(1, 1), notes=("alpha_on_white",), colour=gray(127), slack=1)
    clear = ("alpha_on_white",)
    yield Odd("png clear", file(flat("RGBA", (1, 2, 3, 0)), "PNG"), notes=clear, colour=gray(255))
    yield Odd("png half clear", file(flat("RGBA", (0, 0, 0, 128)), "PNG"), notes=clear, colour=gray(127))
    yield Odd("png opaque alpha", file(flat("RGBA", (*RED, 255)), "PNG"), notes=("rgba",), colour=RED)
    yield Odd("png gray alpha", file(flat("LA", (0, 128)), "PNG"), notes=clear, colour=gray(127))
    yield Odd("png one colour is clear", file(flat(), "PNG", transparency=RED), notes=clear, colour=gray(255))
    yield Odd(
        "png gray one level is clear", file(flat("L", 9), "PNG", transparency=9), notes=clear, colour=gray(255)
    )
    plain = file(flat(), "PNG")
    yield Odd("png trailing garbage", plain + b"x" * 999, colour=RED)
    yield Odd("png unknown chunk", plain[:33] + chunk(b"abCd", b"?" * 50) + plain[33:], colour=RED)
    yield Odd(
        "png broken icc", plain[:33] + chunk(b"iCCP", b"n\0\0" + zlib.compress(b"x")) + plain[33:], colour=RED
    )
    yield Odd("png icc that is no zlib", plain[:33] + chunk(b"iCCP", b"n\0\0zzz") + plain[33:], colour=RED)
    yield Odd("png in several pieces of data", split_data(plain), colour=RED)
    yield Odd("png without its end", plain[:-12], colour=RED)
    short = png(8, 1, 8, 3, b"\0" + bytes(8), chunk(b"PLTE", bytes(RED)))
    yield Odd("png palette is short", short, size=(8, 1), notes=("palette",), colour=RED)
    frames = file(flat(), "PNG", save_all=True, append_images=[flat(value=(0, 0, 255))])
    yield Odd("apng", frames, notes=("first_frame",), colour=RED)


def split_data(data: bytes) -> bytes:
    """A PNG with its image data in chunks of a byte each."""
    start = data.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", data, start)
    body = data[start + 8 : start + 8 + length]
    return data[:start] + b"".join(chunk(b"IDAT", bytes([b])) for b in body) + data[start + 12 + length :]


def png_damage() -> Iterator[Odd]:
    image = file(photo(90, 70), "PNG")
    for share in (0.5, 0.9):
        yield Odd(f"png cut at {share}", image[: int(len(image) * share)], TRUNCATED)
    for length in (8, 12, 20, 30, 40):
        yield Odd(f"png cut in its header at {length}", image[:length], TRUNCATED)
    yield Odd("png bad checksum of the header", image[:29] + b"\0\0\0\0" + image[33:], CORRUPT)
    start = image.index(b"IDAT") + 4
    yield Odd("png damaged data", image[: start + 99] + b"\xff" * 20 + image[start + 119 :], CORRUPT)
    yield Odd("png without data", image[: start - 8] + chunk(b"IEND", b""), CORRUPT)
    yield Odd("png of zero width", png(0, 5, 8, 2, b"\0" * 5), CORRUPT)
    yield Odd("png of zero size", png(0, 0, 8, 2, b""), CORRUPT)
    yield Odd("png of an unknown kind", png(2, 1, 8, 5, b"\0" * 9), CORRUPT)
    yield Odd("png of 3 bits", png(2, 1, 3, 0, b"\0" * 9), CORRUPT)
    yield Odd("png with too few rows", png(20, 20, 8, 2, b"\0" * 61), size=(20, 20))  # Pillow leaves them black
    yield Odd("png without a header", MAGIC + image[33:], CORRUPT)


def gif(*blocks: bytes, size: tuple[int, int] = (2, 2), palette: bytes = bytes(RED) + bytes(3)) -> bytes:
    flags = 0x80 if palette else 0
    return b"GIF89a" + struct.pack("<HHBBB", *size, flags, 0, 0) + palette + b"".join(blocks) + b";"


def gif_frame(size: tuple[int, int] = (2, 2), data: bytes = b"\2\2\x84Q\0", local: bytes = b"") -> bytes:
    """2x2 pixels of index 0."""
    return b"," + struct.pack("<HHHHB", 0, 0, *size, 0x80 if local else 0) + local + data


def gifs() -> Iterator[Odd]:
    yield Odd("gif", file(flat(), "GIF"), notes=("palette",), colour=RED, slack=6)
    animated = file(flat(), "GIF", save_all=True, append_images=[flat(value=(0, 0, 255))])
    yield Odd("gif animated", animated, notes=("palette", "first_frame"), colour=RED, slack=6)
    yield Odd("gif by hand", gif(gif_frame()), size=(2, 2), notes=("palette",), colour=RED)
    broken_second = gif(gif_frame(), b"!\xf9\4\0\0\0\0\0", b",junk")
    yield Odd("gif with a broken second frame", broken_second, size=(2, 2), notes=("palette",), colour=RED)
    yield Odd(
        "gif local palette",
        gif(gif_frame(local=bytes(RED) + bytes(3)), palette=b""),
        size=(2, 2),
        notes=("palette",),
        colour=RED,
    )
    yield Odd("gif padded with zeros", gif(gif_frame()) + bytes(99), size=(2, 2), notes=("palette",), colour=RED)
    yield Odd("gif without a trailer", gif(gif_frame())[:-1], size=(2, 2), notes=("palette",), colour=RED)
    comment = b"!\xfe\x05hello\0"
    yield Odd("gif with a comment", gif(comment, gif_frame()), size=(2, 2), notes=("palette",), colour=RED)
    yield Odd("gif without frames", gif(), CORRUPT)
    yield Odd("gif of zero size", gif(gif_frame((0, 0)), size=(0, 0)), CORRUPT)
    yield Odd("gif that says it is huge", gif(gif_frame((65_000, 65_000)), size=(65_000, 65_000)), HUGE)
    picture = file(photo(90, 70).quantize(), "GIF")
    yield Odd("gif cut", picture[: len(picture) // 2], TRUNCATED)
    yield Odd("gif cut in its header", picture[:9], TRUNCATED)
    clear = flat("P", 1)
    clear.putpalette([9, 9, 9, *RED])
    yield Odd("gif clear", file(clear, "GIF", transparency=1), notes=("alpha_on_white",), colour=gray(255))


def bmp(width: int, height: int, bits: int, pixels: bytes, palette: bytes = b"", compression: int = 0) -> bytes:
    """A Windows bitmap."""
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + palette + pixels


def bmps() -> Iterator[Odd]:
    blue_first = bytes(RED[::-1])
    table = blue_first + b"\0" + bytes(4)
    yield Odd("bmp 24", bmp(2, 1, 24, blue_first * 2 + b"\0\0"), size=(2, 1), colour=RED)
    yield Odd("bmp from the top", bmp(2, -1, 24, blue_first * 2 + b"\0\0"), size=(2, 1), colour=RED)
    yield Odd("bmp 32", bmp(1, 1, 32, blue_first + b"\0"), size=(1, 1), colour=RED)
    yield Odd("bmp 8", bmp(4, 1, 8, bytes(4), table * 128), size=(4, 1), notes=("palette",), colour=RED)
    yield Odd("bmp 4", bmp(4, 1, 4, bytes(4), table * 8), size=(4, 1), notes=("palette",), colour=RED)
    yield Odd("bmp 1", bmp(8, 1, 1, bytes(4), table), size=(8, 1), notes=("palette",), colour=RED)
    yield Odd("bmp 16", bmp(2, 1, 16, struct.pack("<HH", 31 << 10, 31 << 10)), size=(2, 1), colour=(255, 0, 0))
    runs = bmp(4, 1, 8, b"\4\0\0\1", table * 128, compression=1)
    yield Odd("bmp runs", runs, size=(4, 1), notes=("palette",), colour=RED)
    old = b"BM" + struct.pack("<IHHI", 34, 0, 0, 26) + struct.pack("<IHHHH", 12, 2, 1, 1, 24)
    yield Odd("bmp of os/2", old + blue_first * 2 + b"\0\0", size=(2, 1), colour=RED)
    picture = file(photo(60, 40), "BMP")
    yield Odd("bmp cut", picture[: len(picture) // 2], TRUNCATED)
    yield Odd("bmp cut in its header", picture[:20], TRUNCATED)
    yield Odd("bmp that says it is huge", bmp(60_000, 60_000, 24, b"x" * 99), HUGE)
    yield Odd("bmp of an unknown depth", bmp(2, 1, 7, bytes(9)), CORRUPT)


def tiffs() -> Iterator[Odd]:
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"):
        yield Odd(f"tiff {compression}", file(flat(), "TIFF", compression=compression), colour=RED)
    yield Odd("tiff jpeg", file(flat(), "TIFF", compression="jpeg"), colour=RED, slack=4)
    yield Odd("tiff fax", file(flat("1", 1), "TIFF", compression="group4"), notes=("1_bit",), colour=gray(255))
    yield Odd("tiff cmyk", file(flat("CMYK", (0, 0, 0, 255)), "TIFF"), notes=("cmyk",), colour=gray(0))
    yield Odd("tiff lab", file(flat("LAB", (255, 128, 128)), "TIFF"), notes=("lab",), colour=gray(255), slack=3)
    yield Odd("tiff palette", file(flat().quantize(2), "TIFF"), notes=("palette",), colour=RED, slack=4)
    yield Odd("tiff rgba", file(flat("RGBA", (0, 0, 0, 0)), "TIFF"), notes=("alpha_on_white",), colour=gray(255))
    for kind, value, notes, colour in (
        ("<u2", 65_535, "16_bit", 255),
        (">u2", 257, "16_bit", 1),
        ("<i4", 30_000, "16_bit", 117),
        ("<f4", 0.5, "float", 128),
    ):
        image = Image.fromarray(np.full((30, 40), value, kind))
        yield Odd(f"tiff {kind}", file(image, "TIFF"), notes=(notes,), colour=gray(colour))
    wide = Image.fromarray(np.tile(np.linspace(0, 2**31 - 1, 40).astype("<i4"), (30, 1)))
    yield Odd("tiff of 32 bits", file(wide, "TIFF"), notes=("32_bit",))
    pages = file(flat(), "TIFF", save_all=True, append_images=[flat(size=(9, 9), value=(0, 0, 255))])
    yield Odd("tiff pages", pages, notes=("first_frame",), colour=RED)
    yield Odd("tiff big", file(flat(), "TIFF", big_tiff=True), colour=RED)
    picture = file(photo(90, 70), "TIFF", compression="tiff_lzw")
    yield Odd("tiff cut", picture[: len(picture) // 2], TRUNCATED)
    raw = file(photo(90, 70), "TIFF")
    yield Odd("tiff raw cut", raw[: len(raw) // 2], TRUNCATED)
    yield Odd("tiff cut in its header", raw[:6], TRUNCATED)
    yield Odd("tiff whose directory is beyond the end", b"II*\0" + struct.pack("<I", 1 << 20), TRUNCATED)
    yield Odd("tiff that points at itself", b"II*\0\x08\0\0\0" + b"\0\0" + struct.pack("<I", 8), CORRUPT)
    yield Odd("tiff without tags", b"MM\0*\0\0\0\x08\0\0\0\0\0\0", CORRUPT)


def modern() -> Iterator[Odd]:
    """WebP, AVIF and JPEG 2000."""
    near = {"colour": RED, "slack": 4}
    yield Odd("webp", file(flat(), "WEBP", quality=95), **near)
    yield Odd("webp lossless", file(flat(), "WEBP", lossless=True), colour=RED)
    clear = file(flat("RGBA", (1, 2, 3, 0)), "WEBP", lossless=True)
    yield Odd("webp clear", clear, notes=("alpha_on_white",), colour=gray(255))
    moving = file(flat(), "WEBP", save_all=True, append_images=[flat(value=(0, 0, 255))], lossless=True)
    yield Odd("webp animated", moving, notes=("first_frame",), colour=RED)
    yield Odd("webp padded", file(flat(), "WEBP", lossless=True) + bytes(99), colour=RED)
    yield Odd("avif", file(flat(), "AVIF", quality=95), colour=RED, slack=5)
    clear = file(flat("RGBA", (1, 2, 3, 0)), "AVIF")
    yield Odd("avif clear", clear, notes=("alpha_on_white",), colour=gray(255))
    yield Odd("jpeg 2000", file(flat(), "JPEG2000"), colour=RED)
    yield Odd("jpeg 2000 lossy", file(flat(), "JPEG2000", irreversible=True), **near)
    yield Odd("jpeg 2000 code stream", file(flat(), "JPEG2000", no_jp2=True), colour=RED)
    yield Odd("jpeg 2000 gray", file(flat("L", 77), "JPEG2000"), notes=("grayscale",), colour=gray(77))
    deep = Image.fromarray(np.full((30, 40), 30_000, "<u2"))
    yield Odd("jpeg 2000 of 16 bits", file(deep, "JPEG2000"), notes=("16_bit",), colour=gray(117))
    clear = file(flat("RGBA", (1, 2, 3, 0)), "JPEG2000")
    yield Odd("jpeg 2000 clear", clear, notes=("alpha_on_white",), colour=gray(255))
    for format_, options in (("WEBP", {}), ("AVIF", {}), ("JPEG2000", {}), ("JPEG2000", {"no_jp2": True})):
        picture = file(photo(200, 150), format_, **options)
        for share in (0.3, 0.7):
            yield Odd(f"{format_} {options} cut at {share}", picture[: int(len(picture) * share)], TRUNCATED)
        yield Odd(f"{format_} {options} cut in its header", picture[:14], TRUNCATED)
    webp = file(photo(200, 150), "WEBP")
    yield Odd("webp damaged", webp[:20] + b"\xff" * 60 + webp[80:], CORRUPT)


def icon(entries: list[tuple[int, int, bytes]], *, shift: int = 0) -> bytes:
    """An ICO file of (width, height, image)."""
    offset = 6 + 16 * len(entries) + shift
    table, images = b"", b""
    for width, height, data in entries:
        table += struct.pack("<BBBBHHII", width, height, 0, 0, 1, 32, len(data), offset + len(images))
        images += data
    return b"\0\0\1\0" + struct.pack("<H", len(entries)) + table + images


def small_formats() -> Iterator[Odd]:
    inside = file(flat(size=(16, 16)), "PNG")
    yield Odd("ico of a png", icon([(16, 16, inside)]), size=(16, 16), colour=RED)
    old = file(flat("RGBA", (*RED, 255), (16, 16)), "ICO", sizes=[(16, 16)], bitmap_format="bmp")
    yield Odd("ico of a bitmap", old, size=(16, 16), notes=("rgba",), colour=RED)
    yield Odd("ico without entries", icon([]), UNSUPPORTED)
    yield Odd("ico that points beyond its end", icon([(16, 16, inside)], shift=9999), UNSUPPORTED)
    yield Odd("icns", file(flat(size=(32, 32)), "ICNS"), size=(1024, 1024), colour=RED)
    yield Odd("tga", file(flat(), "TGA"), colour=RED)
    yield Odd("tga runs", file(flat(), "TGA", compression="tga_rle"), colour=RED)
    yield Odd("ppm", b"P6 2 1 255\n" + bytes(RED) * 2, size=(2, 1), colour=RED)
    yield Odd("ppm of text", b"P3 1 1 255 200 30 20\n", size=(1, 1), colour=RED)
    yield Odd("ppm with a comment", b"P6 # made by hand\n2 1 255\n" + bytes(RED) * 2, size=(2, 1), colour=RED)
    yield Odd("pgm", b"P5 2 1 255\n" + bytes([77, 77]), size=(2, 1), notes=("grayscale",), colour=gray(77))
    deep = b"P5 2 1 65535\n" + struct.pack(">HH", 30_000, 30_000)
    yield Odd("pgm of 16 bits", deep, size=(2, 1), notes=("16_bit",), colour=gray(117))
    yield Odd("pbm", b"P4 8 1\n\0", size=(8, 1), notes=("1_bit",), colour=gray(255))
    yield Odd("pfm", b"Pf 1 1 -1.0\n" + struct.pack("<f", 0.5), size=(1, 1), notes=("float",), colour=gray(128))
    yield Odd("ppm cut", b"P6 20 10 255\n" + bytes(50), TRUNCATED)
    yield Odd("qoi", file(flat("RGBA", (*RED, 255)), "QOI"), notes=("rgba",), colour=RED)
    yield Odd("dds", file(flat(), "DDS"), colour=RED)
    yield Odd("sgi", file(flat(), "SGI"), colour=RED)
    yield Odd("pcx", file(flat(), "PCX"), colour=RED)
    yield Odd("xbm", file(flat("1", 1), "XBM"), notes=("1_bit",), colour=gray(255))
    yield Odd("spider", file(flat("F", 0.5), "SPIDER"), notes=("float",), colour=gray(128))
    yield Odd("msp", file(flat("1", 1), "MSP"), notes=("1_bit",), colour=gray(255))


def bombs() -> Iterator[Odd]:
    """Small files that ask for a lot."""
    yield Odd("png bomb", png(20_000, 20_000, 8, 2, bytes(1000)), HUGE)
    yield Odd("png with a side beyond the limit", png(70_000, 1, 8, 0, bytes(70_001)), HUGE)
    yield Odd("ppm bomb", b"P6 99999 99999 255\n", HUGE)
    inside = png(30_000, 30_000, 8, 2, bytes(1000))
    yield Odd("ico around a bomb", icon([(16, 16, inside)]), HUGE)
    header = struct.pack(">IIBBBBB", 40, 30, 8, 2, 0, 0, 0)
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(100_000_000)))
    row = b"\0" + bytes(RED) * 40
    body = chunk(b"IHDR", header) + text + chunk(b"IDAT", zlib.compress(row * 30)) + chunk(b"IEND", b"")
    yield Odd("png with a text bomb", MAGIC + body, notes=("long_text_left_out",), colour=RED)


def no_images() -> Iterator[Odd]:
    """What is under the name of an image and is none."""
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.jpg", b"no")
    for name, data in {
        "nothing but a newline": b"\n",
        "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "json": b'{"error": "expired"}',
        "xml of a store": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "pdf": b"%PDF-1.7\n1 0 obj\nendobj\n" * 9,
        "zip": zipped.getvalue(),
        "mp4": struct.pack(">I4s4s", 24, b"ftyp", b"isom") + bytes(99),
        "heic": struct.pack(">I4s4s", 24, b"ftyp", b"heic") + bytes(99),
        "wav": b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + bytes(28),
        "zeros": bytes(5000),
        "ones": b"\xff" * 5000,
        "noise": np.random.default_rng(7).bytes(5000),
        "an address": b"https://example.com/cat.jpg",
        "a git pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
        "gzip": b"\x1f\x8b\x08\0" + bytes(60),
        "elf": b"\x7fELF\2\1\1" + bytes(99),
    }.items():
        yield Odd(name, data, UNSUPPORTED)
