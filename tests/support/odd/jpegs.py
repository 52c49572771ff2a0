"""Odd JPEGs, damaged ones, and every EXIF orientation."""

import struct
from collections.abc import Iterator

from PIL import Image, ImageCms

from tests.support.making import photo
from tests.support.odd.base import CORRUPT, HUGE, RED, SIZE, TRUNCATED, Odd, file, flat, gray


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
