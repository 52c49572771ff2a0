"""A Pillow image of any mode -> 8-bit RGB, with the colours that a person would see. It knows no files."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

STRIP_ROWS = 256
"""Rows of a 16-bit or float image that are converted at once."""


def to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """Convert to 8-bit RGB: alpha on white, 16 bits scaled down. Every mode but RGB is noted."""
    if image.mode in _DEEP_INTEGERS or image.mode == "F":
        return _to_eight_bits(image, notes).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            notes.append("alpha_on_white")
            white = Image.new("RGB", rgba.size, "white")
            white.paste(rgba, mask=rgba)
            return white
    if image.mode != "RGB":
        notes.append(_MODE_NOTES.get(image.mode, image.mode.lower()))
    if image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        found = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        assert found is not None  # None only if `inPlace`
        return found
    return image if image.mode == "RGB" else image.convert("RGB")


_DEEP_INTEGERS = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_MODE_NOTES = {"L": "grayscale", "1": "1_bit", "P": "palette", "LA": "grayscale", "PA": "palette"}


def _to_eight_bits(image: Image.Image, notes: list[str]) -> Image.Image:
    """Convert a 16-bit, 32-bit or float image to 8 bits.

    Floats within 0..1 and integers within 16 bits keep their scale. Others are stretched between their lowest and
    highest value.
    """
    values = np.asarray(image)
    low, high = _range(values)
    if image.mode == "F":
        notes.append("float")
        low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    else:
        notes.append("16_bit" if low >= 0 and high <= 65_535 else "32_bit")
        low, high = (0.0, 65_535.0) if low >= 0 and high <= 65_535 else (low, high)
    out = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), STRIP_ROWS):
        strip = np.nan_to_num(values[row : row + STRIP_ROWS].astype(np.float64), nan=low, posinf=high, neginf=low)
        out[row : row + STRIP_ROWS] = np.clip(np.rint((strip - low) * (255 / max(high - low, 1e-12))), 0, 255)
    return Image.fromarray(out)


def _range(values: NDArray[np.generic]) -> tuple[float, float]:
    """Return the lowest and the highest finite value; 0 and 1 if there is none."""
    low, high = np.inf, -np.inf
    for row in range(0, len(values), STRIP_ROWS):
        strip = values[row : row + STRIP_ROWS]
        finite = strip[np.isfinite(strip)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high) if low <= high else (0.0, 1.0)
