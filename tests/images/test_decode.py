"""Odd images as a person would see them, and broken ones as a row error."""

import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image, ImageFile

from pipeline.errors import ErrorCode, RowError, Stage
from pipeline.images.decode import Decoded, decode
from pipeline.models.processor import read_preprocessing
from tests.support.making import decode_options, encoded, photo

STEPS = read_preprocessing({"image_processor_type": "ViTImageProcessor", "size": 32}, "m")


def decoded(data: bytes, **settings: Any) -> Decoded:
    return decode(data, STEPS, decode_options(**settings))


def colour(found: Decoded) -> tuple[int, ...]:
    """The one colour of an image that has one."""
    pixels = found.pixels.reshape(-1, 3)
    assert (pixels == pixels[0]).all()
    return tuple(pixels[0].tolist())


def error_of(data: bytes, **settings: Any) -> RowError:
    with pytest.raises(RowError) as caught:
        decoded(data, **settings)
    assert caught.value.stage is Stage.DECODE
    assert " at 0x" not in caught.value.message  # Pillow puts memory addresses in its own
    return caught.value


def flat(mode: str, value: Any) -> Image.Image:
    return Image.new(mode, (40, 30), value)


def palette(format_: str, **options: Any) -> bytes:
    image = Image.new("P", (40, 30), 1)
    image.putpalette([9, 9, 9, 200, 100, 50])
    return encoded(image, format_, **options)


def array(dtype: str, value: float, format_: str) -> bytes:
    return encoded(Image.fromarray(np.full((30, 40), value, dtype)), format_)


WHITE = (255, 255, 255)
ODD: dict[str, tuple[bytes, tuple[int, int, int], tuple[str, ...]]] = {
    "grayscale": (encoded(flat("L", 77)), (77, 77, 77), ("grayscale",)),
    "palette": (palette("PNG"), (200, 100, 50), ("palette",)),
    "palette gif": (palette("GIF"), (200, 100, 50), ("palette",)),
    "transparent palette": (palette("PNG", transparency=1), WHITE, ("alpha_on_white",)),
    "half transparent palette": (
        palette("PNG", transparency=b"\xff\x80"),
        (227, 177, 152),
        ("alpha_on_white",),
    ),
    "unused transparency": (palette("PNG", transparency=0), (200, 100, 50), ("palette",)),
    "transparent": (encoded(flat("RGBA", (10, 20, 30, 0))), WHITE, ("alpha_on_white",)),
    "half transparent": (encoded(flat("RGBA", (0, 0, 0, 128))), (127, 127, 127), ("alpha_on_white",)),
    "opaque alpha": (encoded(flat("RGBA", (10, 20, 30, 255))), (10, 20, 30), ("rgba",)),
    "transparent webp": (encoded(flat("RGBA", (1, 2, 3, 0)), "WEBP"), WHITE, ("alpha_on_white",)),
    "gray with alpha": (encoded(flat("LA", (0, 128))), (127, 127, 127), ("alpha_on_white",)),
    "gray with opaque alpha": (encoded(flat("LA", (9, 255))), (9, 9, 9), ("grayscale",)),
    "one transparent colour": (
        encoded(flat("RGB", (1, 2, 3)), transparency=(1, 2, 3)),
        WHITE,
        ("alpha_on_white",),
    ),
    "one bit": (encoded(flat("1", 1)), WHITE, ("1_bit",)),
    "one bit tiff": (encoded(flat("1", 0), "TIFF", compression="group4"), (0, 0, 0), ("1_bit",)),
    "cmyk jpeg": (encoded(flat("CMYK", (255, 0, 0, 0)), "JPEG"), (0, 255, 255), ("cmyk",)),
    "cmyk tiff": (encoded(flat("CMYK", (0, 0, 0, 255)), "TIFF"), (0, 0, 0), ("cmyk",)),
    "16 bit png": (array("<u2", 30_000, "PNG"), (117, 117, 117), ("16_bit",)),
    "16 bit tiff": (array("<u2", 65_535, "TIFF"), WHITE, ("16_bit",)),
    "big-endian 16 bit tiff": (array(">u2", 257, "TIFF"), (1, 1, 1), ("16_bit",)),
    "16 bit pgm": (b"P5 2 1 65535\n" + struct.pack(">HH", 30_000, 30_000), (117, 117, 117), ("16_bit",)),
    "float": (array("<f4", 0.5, "TIFF"), (128, 128, 128), ("float",)),
}


@pytest.mark.parametrize("name", ODD)
def test_every_kind_of_image_has_the_colour_a_person_would_see(name: str) -> None:
    data, expected, notes = ODD[name]
    found = decoded(data)
    assert colour(found) == expected
    assert found.notes == notes


def test_sixteen_bits_keep_their_gradient() -> None:
    ramp = np.tile(np.linspace(0, 65_535, 32).astype("<u2"), (32, 1))
    found = decoded(encoded(Image.fromarray(ramp)))
    assert found.pixels[0, :, 0].tolist() == np.rint(np.linspace(0, 65_535, 32).astype(int) / 257).tolist()


def test_floats_outside_zero_to_one_are_stretched_and_holes_are_dark() -> None:
    values = np.tile(np.linspace(-100, 300, 32, dtype="<f4"), (32, 1))
    values[0] = np.nan
    found = decoded(encoded(Image.fromarray(values), "TIFF"))
    assert (found.pixels[1, 0, 0], found.pixels[1, -1, 0], found.pixels[0].max()) == (0, 255, 0)
    assert (np.diff(found.pixels[1, :, 0].astype(int)) > 0).all()


def test_a_float_image_without_any_finite_value_is_decoded() -> None:
    assert decoded(array("<f4", np.nan, "TIFF")).pixels.shape == (32, 32, 3)


TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How the camera stored an image, for each orientation."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_image_is_upright_whatever_its_orientation(format_: str, orientation: int) -> None:
    upright = photo(60, 40)
    stored = upright.transpose(TURNED[orientation]) if orientation in TURNED else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 98} if format_ == "JPEG" else {"lossless": True} if format_ == "WEBP" else {}
    found = decoded(encoded(stored, format_, exif=exif, **options))
    assert (found.width, found.height) == (60, 40)
    difference = np.abs(found.pixels.astype(int) - decoded(encoded(upright)).pixels.astype(int))
    assert difference.mean() < 3
    if format_ != "TIFF":  # Pillow's TIFF plug-in turns by itself
        assert found.notes == (() if orientation == 1 else ("exif_orientation",))


@pytest.mark.filterwarnings("ignore")  # Pillow says so too, in many words
@pytest.mark.parametrize("length", [*range(6, 40), 60])
def test_a_broken_exif_never_costs_the_image(length: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    exif[0x010F] = "the maker of the camera"
    image = photo(60, 40)
    found = decoded(encoded(image, "JPEG", exif=exif.tobytes()[:length]))
    assert (found.width, found.height) == (60, 40)
    assert set(found.notes) <= {"exif_orientation", "exif_unreadable"}


def test_exif_that_is_no_exif_is_ignored() -> None:
    image = photo(60, 40)
    found = decoded(encoded(image, "JPEG", exif=b"Exif\0\0garbage garbage garbage"))
    np.testing.assert_array_equal(found.pixels, decoded(encoded(image, "JPEG")).pixels)


def test_another_broken_tag_does_not_hide_the_orientation() -> None:
    entries = [(0x0112, 3, 1, struct.pack("<HH", 6, 0)), (0x011A, 2, 4, b"72\0\0")]
    body = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)
    found = decoded(encoded(photo(60, 40), "JPEG", exif=exif))
    assert (found.width, found.height) == (40, 60)


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_frame_of_an_animation_is_taken(format_: str) -> None:
    first, second = flat("RGB", (200, 0, 0)), flat("RGB", (0, 0, 200))
    options = {"lossless": True} if format_ == "WEBP" else {}
    found = decoded(encoded(first, format_, save_all=True, append_images=[second], **options))
    red, green, blue = colour(found)
    assert red > 190
    assert max(green, blue) < 10
    assert "first_frame" in found.notes


CUT = [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("BMP", {}), ("PPM", {})]


@pytest.mark.parametrize(("format_", "options"), CUT)
def test_a_truncated_file_is_an_error_unless_padding_is_asked_for(format_: str, options: dict[str, Any]) -> None:
    data = encoded(photo(200, 150), format_, **options)
    half = data[: len(data) // 2]
    assert error_of(half).code is ErrorCode.TRUNCATED
    padded = decoded(half, truncated="pad")
    assert "truncated_padded" in padded.notes
    assert (padded.width, padded.height) == (200, 150)
    assert error_of(half).code is ErrorCode.TRUNCATED  # the policy of one call is not that of the next
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_the_existing_part_of_a_truncated_file_is_decoded_correctly() -> None:
    for format_ in ("JPEG", "PNG"):
        data = encoded(photo(200, 150), format_)
        whole, padded = decoded(data), decoded(data[: len(data) // 2], truncated="pad")
        difference = np.abs(padded.pixels[:10].astype(int) - whole.pixels[:10].astype(int))
        assert difference.max() <= 1
        assert np.abs(padded.pixels[-5:].astype(int) - whole.pixels[-5:].astype(int)).mean() > 10


@pytest.mark.parametrize("format_", ["WEBP", "JPEG2000", "AVIF", "TIFF"])
def test_a_truncated_file_of_any_other_format_is_some_row_error(format_: str) -> None:
    data = encoded(photo(200, 150), format_)
    error_of(data[: len(data) // 2])


@pytest.mark.parametrize("policy", ["error", "pad"])
@pytest.mark.parametrize("data", [b"", b"just some text\n" * 50, b"<svg/>", bytes(5000), b"%PDF-1.7\n" * 9])
def test_a_file_that_is_not_an_image_is_an_unsupported_format(data: bytes, policy: str) -> None:
    assert error_of(data, truncated=policy).code is ErrorCode.UNSUPPORTED_FORMAT


@given(st.binary(max_size=200), st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "ICO", "TGA"]))
@pytest.mark.filterwarnings("ignore")
def test_no_bytes_raise_anything_but_a_row_error(garbage: bytes, format_: str) -> None:
    head = encoded(photo(16, 16), format_)[:40]
    for data in (garbage, head + garbage):
        with contextlib.suppress(RowError):
            assert decoded(data, max_pixels=10_000).pixels.shape == (32, 32, 3)


def test_a_damaged_file_is_corrupt() -> None:
    data = bytearray(encoded(photo(200, 150), "PNG"))
    data[60] ^= 0xFF
    data[len(data) // 2] ^= 0xFF
    assert error_of(bytes(data)).code in (ErrorCode.CORRUPT, ErrorCode.UNSUPPORTED_FORMAT)


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and ends there."""
    data = bytearray(encoded(Image.new("RGB", (1, 1))))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data[:45])


def test_an_image_over_the_pixel_limit_is_refused_by_its_header() -> None:
    error = error_of(png_header(100_000, 100_000))
    assert error.code is ErrorCode.TOO_MANY_PIXELS
    assert error.message == "the image has more than decode.max_pixels = 100000000 pixels"


def test_an_image_of_exactly_the_limit_is_taken() -> None:
    assert decoded(encoded(photo(40, 30)), max_pixels=1200).pixels.shape == (32, 32, 3)
    assert error_of(encoded(photo(40, 30)), max_pixels=1199).code is ErrorCode.TOO_MANY_PIXELS


@pytest.mark.filterwarnings("ignore:Image was not the expected size")
def test_a_small_icon_around_a_huge_image_is_refused_before_it_is_decoded() -> None:
    png = png_header(300, 200)
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(png), 22)
    icon = b"\0\0\1\0" + struct.pack("<H", 1) + entry + png
    assert error_of(icon, max_pixels=1000).code is ErrorCode.TOO_MANY_PIXELS


def test_a_thin_image_that_would_grow_over_the_limit_is_refused() -> None:
    steps = read_preprocessing(
        {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 40}, "crop_size": 32}, "m"
    )
    data = encoded(Image.new("RGB", (1, 5000)))
    with pytest.raises(RowError) as caught:
        decode(data, steps, decode_options(max_pixels=100_000))
    assert caught.value.code is ErrorCode.TOO_MANY_PIXELS
    assert decode(data, steps, decode_options(max_pixels=10_000_000)).pixels.shape == (32, 32, 3)


def test_the_same_bytes_give_the_same_pixels() -> None:
    data = encoded(photo(90, 60), "JPEG")
    np.testing.assert_array_equal(decoded(data).pixels, decoded(io.BytesIO(data).getvalue()).pixels)
