"""Generate an image lake: pictures in many file formats, some deliberately bad files, and a Parquet manifest.

The same seed and the same versions of libraries give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.demo.drawing import CLASSES, draw, draw_cutout

__all__ = ["CLASSES", "DATASETS", "KINDS", "draw", "encoded_picture", "make_lake"]

DATASETS: tuple[str, ...] = ("catalog", "street 2024", "007")
"""A plain name, one that needs percent-encoding in a URL, and one that a careless reader turns into a number."""
DUPLICATES = 8
"""Rows that come twice in the manifest."""
LAKE_STREAM = 0x1A4E_0001
"""First word of the seeds of lakes, so that no other generator draws the same pictures."""

UPRIGHT_TO_STORED: dict[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How an upright picture is turned to be stored with each EXIF orientation."""
EXIF_ORIENTATION = 0x0112

Generator = np.random.Generator
Encode = Callable[[Image.Image, Generator], bytes]


def _saved(picture: Image.Image, form: str, **options: object) -> bytes:
    """Return the bytes of a picture in one of Pillow's file formats."""
    target = io.BytesIO()
    picture.save(target, form, **options)
    return target.getvalue()


def _quality(rng: Generator) -> int:
    return int(rng.integers(55, 96))


def _jpeg(picture: Image.Image, rng: Generator) -> bytes:
    return _saved(picture, "JPEG", quality=_quality(rng))


def _progressive_jpeg(picture: Image.Image, rng: Generator) -> bytes:
    return _saved(picture, "JPEG", quality=_quality(rng), progressive=True)


def _gray_jpeg(picture: Image.Image, rng: Generator) -> bytes:
    return _saved(picture.convert("L"), "JPEG", quality=_quality(rng))


def _cmyk_jpeg(picture: Image.Image, rng: Generator) -> bytes:
    return _saved(picture.convert("CMYK"), "JPEG", quality=_quality(rng))


def _turned_jpeg(picture: Image.Image, rng: Generator) -> bytes:
    """Store turned or mirrored pixels: a reader must apply the EXIF orientation to see them upright."""
    orientation = int(rng.integers(2, 9))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    stored = picture.transpose(UPRIGHT_TO_STORED[orientation])
    return _saved(stored, "JPEG", quality=_quality(rng), exif=exif.tobytes())


def _png(picture: Image.Image, rng: Generator) -> bytes:
    return _saved(picture, "PNG", compress_level=3)


def _palette_png(picture: Image.Image, rng: Generator) -> bytes:
    return _saved(picture.quantize(int(rng.integers(24, 129))), "PNG")


def _opaque_rgba_png(picture: Image.Image, rng: Generator) -> bytes:
    return _png(picture.convert("RGBA"), rng)


def _webp(picture: Image.Image, rng: Generator) -> bytes:
    return _saved(picture, "WEBP", quality=_quality(rng), method=2)


def _gif(picture: Image.Image, rng: Generator) -> bytes:
    return _saved(picture.quantize(128), "GIF")


def _bmp(picture: Image.Image, rng: Generator) -> bytes:
    return _saved(picture, "BMP")


def _tiff(picture: Image.Image, rng: Generator) -> bytes:
    return _saved(picture, "TIFF", compression="tiff_lzw")


@dataclass(frozen=True)
class Kind:
    """A kind of image file: its number in a cycle, its extension, and how it is drawn and encoded."""

    share: int
    extension: str
    encode: Encode
    paint: Callable[[str, Generator, int, int], Image.Image] = draw


KINDS: dict[str, Kind] = {
    "jpeg": Kind(13, "jpg", _jpeg),
    "progressive jpeg": Kind(4, "jpeg", _progressive_jpeg),
    "gray jpeg": Kind(3, "jpg", _gray_jpeg),
    "cmyk jpeg": Kind(2, "jpg", _cmyk_jpeg),
    "turned jpeg": Kind(3, "JPG", _turned_jpeg),
    "png": Kind(2, "png", _png),
    "palette png": Kind(2, "png", _palette_png),
    "rgba png": Kind(2, "png", _opaque_rgba_png),
    "cutout png": Kind(2, "png", _png, draw_cutout),
    "webp": Kind(1, "webp", _webp),
    "gif": Kind(1, "gif", _gif),
    "bmp": Kind(1, "bmp", _bmp),
    "tiff": Kind(1, "tif", _tiff),
}
KIND_CYCLE: tuple[str, ...] = tuple(name for name, kind in KINDS.items() for _ in range(kind.share))
"""37 places, coprime with the number of classes: every class meets every kind, and 37 images have all kinds."""


def _size(rng: Generator) -> tuple[int, int]:
    """Return width and height in pixels, 120 to 700 each, with an aspect ratio of 0.6 to 1.7."""
    side = np.exp(rng.uniform(np.log(155), np.log(500)))
    stretch = np.sqrt(np.exp(rng.uniform(np.log(0.6), np.log(1.7))))
    return int(side * stretch), int(side / stretch)


def encoded_picture(label: str, kind: str, rng: Generator) -> bytes:
    """Return an image file of a class in CLASSES and a kind in KINDS, with a random size and look."""
    width, height = _size(rng)
    return KINDS[kind].encode(KINDS[kind].paint(label, rng, width, height), rng)


@dataclass(frozen=True)
class _Row:
    """A manifest row; `truth` is None for a file without a whole picture."""

    image_id: str
    uri: str
    dataset: str
    truth: str | None


def _good_row(folder: Path, seed: int, number: int) -> _Row:
    """Draw and write good image `number`."""
    rng = np.random.default_rng([LAKE_STREAM, seed, number])
    label = CLASSES[number % len(CLASSES)]
    kind = KIND_CYCLE[number * 11 % len(KIND_CYCLE)]
    dataset = DATASETS[int(rng.integers(len(DATASETS)))]
    path = folder / "images" / dataset / f"photo {number:05d}.{KINDS[kind].extension}"
    path.write_bytes(encoded_picture(label, kind, rng))
    return _Row(f"img-{number:05d}", str(path), dataset, label)


def _bad_contents(rng: Generator) -> list[tuple[str, bytes | None]]:
    """Return extension and contents of each deliberately bad file; a file with contents None is not written."""
    whole = [encoded_picture(CLASSES[place], "jpeg", rng) for place in range(3)]
    cut = [data[: int(len(data) * share)] for data, share in zip(whole, (0.02, 0.4, 0.75), strict=True)]
    text = b"<html><body>404 Not Found</body></html>\n"
    return [
        *(("jpg", data) for data in cut),
        ("jpg", b""),
        ("png", b""),
        ("jpg", text),
        ("jpg", b"placeholder, picture to follow\n"),
        *(("png", rng.bytes(size)) for size in (64, 5_000, 40_000)),
        ("jpg", None),
        ("webp", None),
    ]


def _bad_rows(folder: Path, seed: int, first: int) -> list[_Row]:
    """Write the deliberately bad files, numbered from `first`."""
    rng = np.random.default_rng([LAKE_STREAM, seed, 0, 1])
    rows = []
    for number, (extension, contents) in enumerate(_bad_contents(rng), start=first):
        dataset = DATASETS[number % len(DATASETS)]
        path = folder / "images" / dataset / f"photo {number:05d}.{extension}"
        if contents is not None:
            path.write_bytes(contents)
        rows.append(_Row(f"img-{number:05d}", str(path), dataset, None))
    return rows


def make_lake(folder: Path, *, images: int = 600, seed: int = 7) -> Path:
    """Write `images` distinct good pictures, twelve bad files and a manifest; return the manifest's path.

    Files are in `folder/images/<dataset>/`. `folder/manifest.parquet` has the string columns image_id, uri (an
    absolute local path), dataset, and truth (a class, null for a bad file). Up to eight rows come twice.
    """
    folder = folder.resolve()
    for dataset in DATASETS:
        (folder / "images" / dataset).mkdir(parents=True, exist_ok=True)
    good = [_good_row(folder, seed, number) for number in range(images)]
    rng = np.random.default_rng([LAKE_STREAM, seed, 0, 2])
    again = [good[int(place)] for place in rng.permutation(images)[:DUPLICATES]]
    rows = [*good, *_bad_rows(folder, seed, images), *again]
    rows = [rows[int(place)] for place in rng.permutation(len(rows))]
    columns = ("image_id", "uri", "dataset", "truth")
    table = pa.table({name: pa.array([getattr(row, name) for row in rows], pa.string()) for name in columns})
    manifest = folder / "manifest.parquet"
    pq.write_table(table, manifest)
    return manifest
