"""Odd files of all other formats."""

import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.support.making import photo
from tests.support.odd.base import CORRUPT, HUGE, RED, TRUNCATED, UNSUPPORTED, Odd, file, flat, gray


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
