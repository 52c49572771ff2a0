"""8-bit RGB pixels of any size -> the model's input: resize and crop as the model's own processor does.

Every value is within one level of 255 of Pillow's, and so of Hugging Face's image processor. This module knows no
files.
"""

import math

import numpy as np
from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer
from numpy.typing import NDArray
from PIL import Image

from pipeline.preprocessing import Preprocessing

Pixels = NDArray[np.uint8]
FAST_SCALE = 1.5
"""From this bilinear reduction on, fast_image_resize does both directions: it was never more than one level off
Pillow in 7e8 values of photos and noise. At smaller scales 2 of 3e8 values were, with other filters many."""

_RESIZER = Resizer()
_BILINEAR = ResizeOptions(ResizeAlg.convolution(FilterType.bilinear), use_alpha=False)
_FOUR = "CMYK"
"""Pillow's mode of four independent channels."""


def size_of(size: tuple[int, int], steps: Preprocessing) -> tuple[int, int]:
    """Return the (height, width) that an image of `size` (width, height) is resized to, before the crop.

    The longer side is rounded down, as Hugging Face does.
    """
    if steps.resize is not None:
        return steps.resize
    edge = steps.shortest_edge or 0
    scaled = int(edge * max(size) / min(size))
    return (scaled, edge) if size[0] <= size[1] else (edge, scaled)


def fit(source: Pixels | Image.Image, steps: Preprocessing) -> Pixels:
    """Resize and crop an RGB image, or RGBX pixels (height, width, 4), to the model's RGB input."""
    image = source if isinstance(source, Image.Image) else _as_image(source)
    height, width = size_of(image.size, steps)
    if steps.resample == "bilinear" and image.width > width:
        fast = min(image.height / height, image.width / width) >= FAST_SCALE
        image = _reduce(image, width, image.height)
        # Pillow does the rest exactly. Its weights add up to one, so an error of one level does not grow.
        image = _reduce(image, width, height) if fast else image
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling[steps.resample.upper()])
    pixels = np.asarray(image)
    pixels = pixels if pixels.shape[2] == 3 else _without_fourth(pixels)
    return _center_crop(pixels, *steps.crop) if steps.crop else pixels


def _as_image(pixels: Pixels) -> Image.Image:
    """View four channels as an image, without a copy."""
    height, width = pixels.shape[:2]
    return Image.frombuffer(_FOUR, (width, height), pixels, "raw", _FOUR, 0, 1)


def _without_fourth(pixels: Pixels) -> Pixels:
    """Copy the first three channels, one by one: copying three bytes of four takes numpy four times as long."""
    found = np.empty((*pixels.shape[:2], 3), np.uint8)
    for channel in range(3):
        found[..., channel] = pixels[..., channel]
    return found


def _reduce(image: Image.Image, width: int, height: int) -> Image.Image:
    """Resize with fast_image_resize, in a fifth of Pillow's time; the width first, as Pillow does."""
    found = Image.new(image.mode, (width, height), None)
    _RESIZER.resize_pil(image, found, _BILINEAR)
    return found


def _center_crop(pixels: Pixels, height: int, width: int) -> Pixels:
    """Cut the centre of an image. Missing pixels are black; the odd one goes where Hugging Face puts it."""
    missing = [max(size - have, 0) for size, have in zip((height, width), pixels.shape[:2], strict=True)]
    if any(missing):
        pads = [(math.ceil(lack / 2), lack // 2) for lack in missing]
        pixels = np.pad(pixels, [*pads, (0, 0)])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]
