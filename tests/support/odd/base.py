"""What odd files are made of, and what is expected of one."""

from dataclasses import dataclass
from typing import Any

from PIL import Image

from pipeline.errors import ErrorCode
from tests.support.making import encoded

Colour = tuple[int, int, int]
CORRUPT, TRUNCATED = ErrorCode.CORRUPT, ErrorCode.TRUNCATED
UNSUPPORTED, HUGE = ErrorCode.UNSUPPORTED_FORMAT, ErrorCode.TOO_MANY_PIXELS
RED: Colour = (200, 30, 20)
SIZE = (40, 30)


@dataclass(frozen=True)
class Odd:
    """One file: either `code`, or the rest. Colours are compared within `slack` levels."""

    name: str
    data: bytes
    code: ErrorCode | None = None
    size: tuple[int, int] = SIZE
    notes: tuple[str, ...] = ()
    colour: Colour | None = None
    slack: int = 0


def flat(mode: str = "RGB", value: Any = RED, size: tuple[int, int] = SIZE) -> Image.Image:
    """An image of one colour."""
    return Image.new(mode, size, value)


def gray(value: int) -> Colour:
    return value, value, value


def file(image: Image.Image, format_: str, **options: Any) -> bytes:
    return encoded(image, format_, **options)
