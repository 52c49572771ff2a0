"""8-bit RGB pixels of any size -> the model's input: resize and crop as its own processor does.

Every value is within one level of 255 of Pillow's, and so of Hugging Face's image processor. It knows no files.
"""

import math

import numpy as np
from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from numpy.typing import NDArray
from PIL import Image

from pipeline.preprocessing import Preprocessing

Pixels = NDArray[np.uint8]
FAST_SCALE = 1.5
"""Bilinear reduction from which on fast_image_resize was never more than one level off Pillow, in 7e8 values of
photos and of noise; at smaller scales 2 of 3e8 were, and with filters that overshoot many are."""

_RESIZER = Resizer()
_BILINEAR = ResizeOptions(ResizeAlg.convolution(FilterType.bilinear), use_alpha=False)


def size_of(size: tuple[int, int], steps: Preprocessing) -> tuple[int, int]:
    """(height, width) that an image of this (width, height) is resized to, before the crop.

    The longer side is rounded down, as HF does.
    """
    if steps.resize is not None:
        return steps.resize
    edge = steps.shortest_edge or 0
    scaled = int(edge * max(size) / min(size))
    return (scaled, edge) if size[0] <= size[1] else (edge, scaled)


def fit(source: Pixels | Image.Image, steps: Preprocessing) -> Pixels:
    """Resize and crop RGB pixels (height, width, 3), or an RGB image, to the model's input."""
    width, height = source.size if isinstance(source, Image.Image) else (source.shape[1], source.shape[0])
    target = size_of((width, height), steps)
    fast = steps.resample == "bilinear" and min(height / target[0], width / target[1]) >= FAST_SCALE
    pixels = (_reduced if fast else _resized)(source, target, steps.resample)
    return _center(pixels, *steps.crop) if steps.crop else pixels


def _reduced(source: Pixels | Image.Image, size: tuple[int, int], _filter: str) -> Pixels:
    """By fast_image_resize, a fifth of Pillow's time; first in width, then in height, as Pillow does."""
    height, width = size
    if isinstance(source, Image.Image):
        for step in ((width, source.height), (width, height)):
            image = Image.new("RGB", step)
            _RESIZER.resize_pil(source, image, _BILINEAR)
            source = image
        return np.asarray(source)
    whole = ImageData(source.shape[1], source.shape[0], PixelType.U8x3, source.tobytes())
    for step in ((width, source.shape[0]), (width, height)):
        data = ImageData(*step, PixelType.U8x3)
        _RESIZER.resize(whole, data, _BILINEAR)
        whole = data
    return np.frombuffer(whole.get_buffer(), np.uint8).reshape(height, width, 3)


def _resized(source: Pixels | Image.Image, size: tuple[int, int], filter_: str) -> Pixels:
    image = source if isinstance(source, Image.Image) else Image.fromarray(source)
    return np.asarray(image.resize(size[::-1], Image.Resampling[filter_.upper()]))


def _center(pixels: Pixels, height: int, width: int) -> Pixels:
    """The centre of an image; what it lacks is black, and the odd pixel goes where HF puts it."""
    missing = [max(size - have, 0) for size, have in zip((height, width), pixels.shape[:2], strict=True)]
    if any(missing):
        pads = [(math.ceil(lack / 2), lack // 2) for lack in missing]
        pixels = np.pad(pixels, [*pads, (0, 0)])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]
