"""Decompression bombs, and files that are no images."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np

from tests.support.odd.base import HUGE, RED, UNSUPPORTED, Odd
from tests.support.odd.formats import icon
from tests.support.odd.pngs import MAGIC, chunk, png


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
