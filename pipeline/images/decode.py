"""Image bytes -> the uint8 pixels that the model takes, or a row error.

Colours become RGB as a person would see them; size, filter and crop are the model's own. Pixels of opaque
8-bit images are within one level of 255 of Hugging Face's image processor. simplejpeg decodes plain JPEGs: it has
the same libjpeg-turbo as Pillow, gives the same pixels, and takes less time. This module does not know where bytes
come from.
"""

import io
import warnings
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from pipeline.errors import ErrorCode, RowError, Stage
from pipeline.images import salvage, variants
from pipeline.images.headers import ends_early, is_image
from pipeline.images.options import DecodeOptions
from pipeline.images.resize import Pixels, fit, size_of
from pipeline.images.rgb import to_rgb
from pipeline.preprocessing import Preprocessing

_UNUSED_PLUGINS = {
    "EPS",  # it starts another program
    "BUFR",  # this and the others are stubs, which decode nothing
    "GRIB",
    "HDF5",
    "WMF",
}
HEIF = find_spec("pillow_heif") is not None
"""Whether HEIC images can be decoded: the extra `heif` is installed."""


def _open_heif() -> None:
    """Register HEIC with Pillow. It decodes with one thread, as all decoders do: the decoding child forks."""
    import pillow_heif

    pillow_heif.options.DECODE_THREADS = 1
    pillow_heif.options.THUMBNAILS = False
    pillow_heif.register_heif_opener()


Image.init()
if HEIF:
    _open_heif()
FORMATS = ("JPEG", *(name for name in Image.ID if name not in {"JPEG", *_UNUSED_PLUGINS}))
"""Pillow plug-ins that are tried: all that decode raster images by themselves, the most frequent format first."""
PEAK_BYTES_PER_PIXEL = 20
"""The most bytes that decoding holds at once per pixel of the original, in any mode.

An upper bound: tests/images/test_decode_memory.py measures 12 in the worst mode.
"""

# Pillow's own limit, set to decode.max_pixels, raises before anything is allocated. It also guards images that
# plug-ins open inside a file, such as the PNG in an icon.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\..*")  # each is noted or an error row


@dataclass(frozen=True)
class Decoded:
    """`pixels` uint8 (height, width, 3) at the model's input size; `width`, `height` of the upright original.

    `notes` says, in order, what was done to it beyond plain decoding.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    notes: tuple[str, ...]


def decode(data: bytes, steps: Preprocessing, options: DecodeOptions) -> Decoded:
    """Decode one image to the model's input size. Raises: RowError with stage `decode`."""
    try:
        return _decode_as_is(data, steps, options, [])
    except RowError:
        raise
    except Exception as error:  # Pillow's plug-ins raise anything on malformed files
        with suppress(Exception):
            if (mended := _salvage(data, options)) is not None:
                return _decode_as_is(mended[0], steps, options, [mended[1]])
        raise _failure(error, data, options) from error


def _decode_as_is(data: bytes, steps: Preprocessing, options: DecodeOptions, notes: list[str]) -> Decoded:
    image = _open(data, options)
    size = image.size
    if _is_rotated_tiff(image):
        notes.append("exif_orientation")  # Pillow's plug-in turns it while loading
    if options.fast:
        _draft(image, steps, notes)
    upright, turned = _upright(image, _load(image, data, options, notes), notes)
    width, height = size[::-1] if turned else size
    _require_room(upright, steps, options)
    pixels = fit(upright if isinstance(upright, np.ndarray) else to_rgb(upright, notes), steps)
    _note_frames(image, notes)
    return Decoded(pixels, width, height, tuple(notes))


def _salvage(data: bytes, options: DecodeOptions) -> tuple[bytes, str] | None:
    """Return a form of the file that can be decoded, and a note; None if the file lacks pixels."""
    if (lean := salvage.without_long_text(data)) is not None:
        return lean, salvage.LONG_TEXT_LEFT_OUT
    if (ended := salvage.with_end(data)) is not None and _is_whole_jpeg(ended, options):
        return ended, salvage.NO_END_MARKER
    return None


def _is_whole_jpeg(data: bytes, options: DecodeOptions) -> bool:
    """Whether libjpeg decodes it without a warning. It warns wherever it makes pixels up."""
    with suppress(Exception):
        image = _open(data, options)  # within the limits
        simplejpeg.decode_jpeg(data, "CMYK" if image.mode == "CMYK" else "GRAY")
        return True
    return False


def _failure(error: Exception, data: bytes, options: DecodeOptions) -> RowError:
    """Return the row error for whatever Pillow raised."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return _error(
            ErrorCode.TOO_MANY_PIXELS, f"the image has more than decode.max_pixels = {options.max_pixels} pixels"
        )
    if isinstance(error, MemoryError):
        return _error(ErrorCode.OUT_OF_MEMORY, "decoding took more memory than an image within the limits needs")
    if isinstance(error, UnidentifiedImageError) and (not is_image(data) or (variants.is_heif(data) and not HEIF)):
        return _unsupported(data, "not an image of a known format")
    if _is_truncation(error) or ends_early(data):
        return _error(ErrorCode.TRUNCATED, "the file ends before its last pixel")
    if variants.is_beyond(error, data):
        return _unsupported(data, "a variant of its format that Pillow cannot decode")
    return _error(ErrorCode.CORRUPT, f"the file is damaged ({type(error).__name__})")


def _unsupported(data: bytes, what: str) -> RowError:
    """Return the error of a file that may be sound."""
    name = variants.name_of(data)
    if name is not None:
        needs = "needs lakelens[heif] to be installed" if name == variants.HEIC else "cannot be decoded here"
        what = f"{name}, which {needs}"
    return _error(ErrorCode.UNSUPPORTED_FORMAT, f"the file is {what}")


def _open(data: bytes, options: DecodeOptions) -> Image.Image:
    """Open an image within the limits; only its header is read."""
    Image.MAX_IMAGE_PIXELS = options.max_pixels
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if max(image.size) > options.max_side:
        raise _error(
            ErrorCode.TOO_MANY_PIXELS,
            f"a side of the image is longer than decode.max_side = {options.max_side} pixels",
        )
    return image


def _require_room(image: Image.Image | Pixels, steps: Preprocessing, options: DecodeOptions) -> None:
    """Refuse a thin image that grows beyond the limit when its shorter side becomes the model's."""
    size = image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])
    height, width = size_of(size, steps)
    if width * height > options.max_pixels:
        raise _error(
            ErrorCode.TOO_MANY_PIXELS,
            f"resized for the model, the image would have {width}x{height} pixels, more than decode.max_pixels",
        )


def _draft(image: Image.Image, steps: Preprocessing, notes: list[str]) -> None:
    """Let libjpeg decode at the smallest DCT scale that still covers the model's input."""
    size = image.size
    target = steps.resize or (steps.shortest_edge, steps.shortest_edge)
    image.draft("RGB", (target[1] or 1, target[0] or 1))
    if image.size != size:
        notes.append("dct_scaled")


def _load(image: Image.Image, data: bytes, options: DecodeOptions, notes: list[str]) -> Image.Image | Pixels:
    """Return the image with its pixels loaded; of a plain JPEG only pixels, RGBX uint8 (height, width, 4)."""
    if image.format == "JPEG" and image.mode == "RGB" and "dct_scaled" not in notes:
        with suppress(ValueError):  # libjpeg warned: Pillow decides
            # Four bytes per pixel, as Pillow has them in memory.
            pixels: Pixels = simplejpeg.decode_jpeg(data, "RGBX", fastdct=False, fastupsample=False)
            if pixels.shape == (image.height, image.width, 4):
                return pixels
    try:
        image.load()
    except Exception as error:
        if (
            options.truncated == "error"
            or not (_is_truncation(error) or ends_early(data))
            or _salvage(data, options)
        ):
            raise
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            image.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        notes.append("truncated_padded")
    return image


def _is_truncation(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, EOFError) or any(word in text for word in ("truncated", "end of file", "not enough"))


def _note_frames(image: Image.Image, notes: list[str]) -> None:
    """Note an animation. Called after the first frame is decoded: the second may be damaged."""
    with suppress(Exception):
        if getattr(image, "is_animated", False):
            notes.append("first_frame")


def _upright(
    image: Image.Image, loaded: Image.Image | Pixels, notes: list[str]
) -> tuple[Image.Image | Pixels, bool]:
    """Apply the EXIF orientation. Return the image, and whether width and height changed places.

    An unreadable EXIF is noted and ignored.
    """
    try:
        orientation = int(image.getexif().get(0x0112, 1))
    except Exception:
        notes.append("exif_unreadable")
        return loaded, False
    if orientation not in _TRANSPOSITIONS:
        return loaded, False
    notes.append("exif_orientation")
    if not isinstance(loaded, Image.Image):
        loaded = Image.frombytes("RGB", loaded.shape[1::-1], loaded.data, "raw", "RGBX")
    return loaded.transpose(_TRANSPOSITIONS[orientation]), orientation >= 5


def _is_rotated_tiff(image: Image.Image) -> bool:
    with suppress(Exception):
        return image.format == "TIFF" and image.getexif().get(0x0112) in _TRANSPOSITIONS
    return False


_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that makes an image of each EXIF orientation upright (EXIF 2.32, tag 0x0112)."""


def _error(code: ErrorCode, message: str) -> RowError:
    return RowError(Stage.DECODE, code, message)
