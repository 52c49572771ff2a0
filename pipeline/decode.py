"""Image bytes -> the uint8 pixels that the model takes, or a row error.

Colours are made RGB as a person would see them; size, filter and crop are the model's own. The pixels
of opaque 8-bit images equal Hugging Face's image processor. It does not know where bytes come from.
"""

import io
import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from pipeline.config import DecodeConfig
from pipeline.errors import ErrorCode, RowError, Stage
from pipeline.preprocessing import Preprocessing

_PLUGINS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "ICO", "CUR", "ICNS", "PPM"),
    *("TGA", "PCX", "DCX", "SGI", "QOI", "PSD", "DDS", "IM", "MSP", "XBM", "XPM", "SUN", "FLI", "BLP"),
)
Image.init()
FORMATS = tuple(name for name in _PLUGINS if name in Image.OPEN)
"""Pillow plug-ins that are tried: all that this Pillow has and that decode raster images by themselves.

Left out are those that start another program (EPS), only stubs of formats, and scientific containers.
"""

# Pillow's own limit is set to decode.max_pixels and made an error, before anything is allocated: it also guards
# what plug-ins open inside a file, such as the PNG in an icon.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\..*")  # each is noted or an error row

_SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True)
class Decoded:
    """`pixels` uint8 (height, width, 3) at the model's input size; `width`, `height` of the upright original.

    `notes` says, in order, what was done to it beyond plain decoding.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    notes: tuple[str, ...]


def decode(data: bytes, steps: Preprocessing, config: DecodeConfig) -> Decoded:
    """Decode one image to the model's input size. Raises: RowError with stage `decode`."""
    notes: list[str] = []
    try:
        image = _open(data, config)
        width, height = image.size
        if config.fast:
            _draft(image, steps, notes)
        _load(image, config, notes)
        upright, on_its_side = _upright(image, notes)
        if on_its_side:
            width, height = height, width
        pixels = _fit(_rgb(upright, notes), steps, config)
    except RowError:
        raise
    except Exception as error:  # Pillow's plug-ins raise anything on malformed files
        raise _failure(error, config) from error
    return Decoded(pixels, width, height, tuple(notes))


def _failure(error: Exception, config: DecodeConfig) -> RowError:
    """The row error of whatever Pillow raised."""
    if isinstance(error, UnidentifiedImageError):
        return _error(ErrorCode.UNSUPPORTED_FORMAT, "the file is not an image of a known format")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return _error(
            ErrorCode.TOO_MANY_PIXELS, f"it has more than decode.max_pixels = {config.max_pixels} pixels"
        )
    if isinstance(error, MemoryError):
        return _error(ErrorCode.OUT_OF_MEMORY, "decoding it needs more memory than there is")
    if _is_truncation(error):
        return _error(ErrorCode.TRUNCATED, "the file ends before its last pixel")
    return _error(ErrorCode.CORRUPT, f"the file is damaged ({type(error).__name__})")


def _open(data: bytes, config: DecodeConfig) -> Image.Image:
    """The image with only its header read, within the limits."""
    Image.MAX_IMAGE_PIXELS = config.max_pixels
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _draft(image: Image.Image, steps: Preprocessing, notes: list[str]) -> None:
    """Let libjpeg decode at the smallest DCT scale that still covers the model's input."""
    size = image.size
    target = steps.resize or (steps.shortest_edge, steps.shortest_edge)
    image.draft("RGB", (target[1] or 1, target[0] or 1))
    if image.size != size:
        notes.append("dct_scaled")


def _load(image: Image.Image, config: DecodeConfig, notes: list[str]) -> None:
    if getattr(image, "is_animated", False):
        notes.append("first_frame")
        image.seek(0)
    try:
        image.load()
    except Exception as error:
        if config.truncated == "error" or not _is_truncation(error):
            raise
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            image.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        notes.append("truncated_padded")


def _is_truncation(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, EOFError) or any(word in text for word in ("truncated", "end of file", "not enough"))


def _upright(image: Image.Image, notes: list[str]) -> tuple[Image.Image, bool]:
    """Apply the EXIF orientation, and say whether width and height changed places.

    An unreadable EXIF is noted and ignored.
    """
    try:
        orientation = int(image.getexif().get(0x0112, 1))
    except Exception:
        notes.append("exif_unreadable")
        return image, False
    if orientation not in _TURNS:
        return image, False
    notes.append("exif_orientation")
    return image.transpose(_TURNS[orientation]), orientation >= 5


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image of each EXIF orientation upright (EXIF 2.32, tag 0x0112)."""


def _rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """8-bit RGB: alpha on white, 16 bits scaled down, any other mode converted; all but RGB is noted."""
    if image.mode in _SIXTEEN_BIT or image.mode == "F":
        notes.append("float" if image.mode == "F" else "16_bit")
        return _eight_bit(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            notes.append("alpha_on_white")
            white = Image.new("RGBA", rgba.size, "white")
            return Image.alpha_composite(white, rgba).convert("RGB")
    if image.mode != "RGB":
        notes.append(_MODE_NOTES.get(image.mode, image.mode.lower()))
    return image.convert("RGB")


_MODE_NOTES = {"L": "grayscale", "1": "1_bit", "P": "palette", "LA": "grayscale", "PA": "palette"}


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit and float images as 8-bit ones; floats are taken as 0..1 if they fit, else stretched."""
    values = np.asarray(image).astype(np.float32)
    if image.mode == "F":
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        if low >= 0.0 and high <= 1.0:
            low, high = 0.0, 1.0
        values = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * (255 / max(high - low, 1e-12))
    else:
        values = values / 257.0
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8), "L")


def _fit(image: Image.Image, steps: Preprocessing, config: DecodeConfig) -> NDArray[np.uint8]:
    """Resize and crop to the model's input, uint8 (height, width, 3)."""
    height, width = steps.resize or _scaled(image, steps.shortest_edge or 0)
    if width * height > config.max_pixels:
        raise _error(ErrorCode.TOO_MANY_PIXELS, f"resized as the model asks it has {width}x{height} pixels")
    filter_ = Image.Resampling[steps.resample.upper()]
    pixels = np.asarray(image.resize((width, height), filter_))
    return _center(pixels, *steps.crop) if steps.crop else pixels


def _scaled(image: Image.Image, shortest_edge: int) -> tuple[int, int]:
    """(height, width) with the shorter side at `shortest_edge`; the longer is rounded down, as HF does."""
    short, long = sorted(image.size)
    scaled = int(shortest_edge * long / short)
    return (scaled, shortest_edge) if image.width <= image.height else (shortest_edge, scaled)


def _center(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The centre of an image; what it lacks is black, and the odd pixel goes where HF puts it."""
    missing = [max(size - have, 0) for size, have in zip((height, width), pixels.shape[:2], strict=True)]
    if any(missing):
        pads = [(math.ceil(lack / 2), lack // 2) for lack in missing]
        pixels = np.pad(pixels, [*pads, (0, 0)])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _error(code: ErrorCode, message: str) -> RowError:
    return RowError(Stage.DECODE, code, message)
