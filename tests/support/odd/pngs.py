"""Odd PNGs, chunk by chunk, and damaged ones."""

import struct
import zlib
from collections.abc import Iterator

from tests.support.making import photo
from tests.support.odd.base import CORRUPT, RED, TRUNCATED, Odd, file, flat, gray


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


def more_pngs() -> Iterator[Odd]:
    """PNGs with alpha, odd chunks and frames."""
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
