"""Draw the pictures of the demo: twelve patterns and shapes with random looks.

All values are float32 grids of the picture's size. A mask holds, from 0 to 1, how much of each pixel belongs to
the figure. Its edges are antialiased from a signed distance in pixels, which is negative inside the figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Grid = NDArray[np.floating[Any]]
Outline = Callable[[Grid, Grid, np.random.Generator], Grid]

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue in brightness, by ITU-R BT.601."""
LEAST_CONTRAST = 0.3
"""Least difference in brightness between figure and backdrop."""


def _stripes(along: Grid, period: float, share: float) -> Grid:
    """Return the signed distance, in the units of `along`, to bands that take `share` of every `period`."""
    distance: Grid = np.abs(np.mod(along, period) - period / 2) - period * share / 2
    return distance


def _turned(x: Grid, y: Grid, angle: float) -> tuple[Grid, Grid]:
    """Return the coordinates in axes that are turned by `angle` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def _bands(x: Grid, y: Grid, rng: np.random.Generator, angle: float) -> Grid:
    """Draw bands whose normal points along `angle` in the unit square, so that resizing keeps the angle."""
    across, _ = _turned(x, y, angle + rng.uniform(-0.13, 0.13))
    period = 1 / rng.uniform(3.0, 7.5)
    return _stripes(across + rng.uniform(0, 1), period, rng.uniform(0.38, 0.62))


def _horizontal(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    return _bands(x, y, rng, math.pi / 2)


def _vertical(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    return _bands(x, y, rng, 0.0)


def _diagonal(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    return _bands(x, y, rng, math.pi / 4 * (-1) ** int(rng.integers(2)))


def _checkerboard(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    a, b = _turned(x, y, rng.uniform(-0.15, 0.15))
    cell = 1 / rng.uniform(3.0, 7.0)
    a, b = a + rng.uniform(0, 1), b + rng.uniform(0, 1)
    one, other = _stripes(a, 2 * cell, 0.5), _stripes(b, 2 * cell, 0.5)
    # The sign of the product alternates from cell to cell. The nearer line gives the distance.
    distance: Grid = -np.sign(one * other) * np.minimum(np.abs(one), np.abs(other))
    return distance


def _polka_dots(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    a, b = _turned(x, y, rng.uniform(-0.3, 0.3))
    period = 1 / rng.uniform(3.0, 6.0)
    a, b = a / period + rng.uniform(0, 1), b / period + rng.uniform(0, 1)
    if rng.random() < 0.5:
        a = a + 0.5 * np.mod(np.floor(b), 2)
    from_centre = np.hypot(np.mod(a, 1) - 0.5, np.mod(b, 1) - 0.5)
    distance: Grid = (from_centre - rng.uniform(0.24, 0.36)) * period
    return distance


def _disc(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    distance: Grid = np.hypot(u, v) - 0.95
    return distance


def _ring(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    half = rng.uniform(0.1, 0.2)
    distance: Grid = np.abs(np.hypot(u, v) - (1 - half)) - half
    return distance


def _triangle(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    u, v = _turned(u, v - 0.2, rng.uniform(-0.35, 0.35))
    distance: Grid = np.maximum(np.abs(u) * 0.866 - v * 0.5, v) - 0.6
    return distance


def _star(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    angle = np.arctan2(u, -v) + rng.uniform(-0.3, 0.3)
    fifth = 2 * math.pi / 5
    folded = np.abs(np.mod(angle + fifth / 2, fifth) - fifth / 2)
    radius, inner = np.hypot(u, v), rng.uniform(0.38, 0.46)
    # The edge runs from the tip (1, 0) to the notch. Its normal is the edge turned by 90 degrees.
    along, across = inner * math.cos(fifth / 2) - 1, inner * math.sin(fifth / 2)
    scaled = (radius * np.cos(folded) - 1) * across - radius * np.sin(folded) * along
    distance: Grid = scaled / math.hypot(along, across)
    return distance


def _cross(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    u, v = _turned(u, v, rng.uniform(-0.3, 0.3))
    arm, u, v = rng.uniform(0.2, 0.32), np.abs(u), np.abs(v)
    distance: Grid = np.minimum(np.maximum(u - 0.95, v - arm), np.maximum(u - arm, v - 0.95))
    return distance


def _spiral(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    radius, turn = np.hypot(u, v), np.arctan2(v, u) / (2 * math.pi)
    turn = turn * (-1) ** int(rng.integers(2)) + rng.uniform(0, 1)
    pitch = 1 / rng.uniform(2.2, 3.2)
    arm = np.abs(np.mod(radius / pitch - turn, 1) - 0.5) * pitch - pitch * rng.uniform(0.2, 0.27)
    distance: Grid = np.maximum(arm, radius - 1)
    return distance


def _heart(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    u, v = _turned(u, v, rng.uniform(-0.3, 0.3))
    a, b = np.abs(u) * 0.62, 0.55 - v * 0.62
    lobe = np.hypot(a - 0.25, b - 0.75) - math.sqrt(2) / 4
    diagonal = np.maximum(a + b, 0) / 2
    below = np.minimum(np.hypot(a, b - 1), np.hypot(a - diagonal, b - diagonal)) * np.sign(a - b)
    distance: Grid = np.where(a + b > 1, lobe, below) / 0.62
    return distance


PATTERNS: dict[str, Outline] = {
    "horizontal stripes": _horizontal,
    "vertical stripes": _vertical,
    "diagonal stripes": _diagonal,
    "checkerboard": _checkerboard,
    "polka dots": _polka_dots,
}
SHAPES: dict[str, Outline] = {
    "disc": _disc,
    "ring": _ring,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "spiral": _spiral,
    "heart": _heart,
}
CLASSES: tuple[str, ...] = (*PATTERNS, *SHAPES)


def _mask(label: str, rng: np.random.Generator, width: int, height: int) -> Grid:
    """Return how much of each pixel the figure covers: float32 (H, W) in 0..1."""
    x = np.arange(width, dtype=np.float32)[None, :] + np.float32(0.5)
    y = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)
    if label in PATTERNS:
        distance = PATTERNS[label](x / width, y / height, rng) * math.sqrt(width * height)
    else:
        radius = min(width, height) / 2 * rng.uniform(0.5, 0.95)
        left = rng.uniform(radius, width - radius)
        top = rng.uniform(radius, height - radius)
        distance = SHAPES[label]((x - left) / radius, (y - top) / radius, rng) * radius
    mask: Grid = np.clip(0.5 - distance, 0, 1)
    return mask


def _colour(rng: np.random.Generator, luma: float) -> Grid:
    """Return a random colour of the given brightness: float32 (3,) in 0..1."""
    colour = rng.random(3, dtype=np.float32)
    own = float(colour @ LUMA)
    if luma < own:
        return colour * (luma / own)
    return 1 - (1 - colour) * ((1 - luma) / (1 - own))


def _lumas(rng: np.random.Generator) -> tuple[float, float]:
    """Return the brightness of figure and backdrop, at least LEAST_CONTRAST apart."""
    gap = rng.uniform(LEAST_CONTRAST, 0.8)
    dark = rng.uniform(0.03, 0.97 - gap)
    return (dark, dark + gap) if rng.random() < 0.5 else (dark + gap, dark)


def _blend_map(rng: np.random.Generator, width: int, height: int) -> Grid:
    """Return a smooth map for mixing two colours, flat, sloping or blotchy: float32 (H, W) in 0..1."""
    style = rng.integers(3)
    if style == 0:
        return np.zeros((height, width), dtype=np.float32)
    if style == 1:
        coarse = np.add.outer(*(np.linspace(0, rng.uniform(-1, 1), 2) for _ in range(2)))
    else:
        coarse = rng.random(tuple(rng.integers(3, 9, 2)))
    coarse = (coarse - coarse.min()) / (np.ptp(coarse) + 1e-6)
    small = Image.fromarray(coarse.astype(np.float32))
    smooth: Grid = np.clip(np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)), 0, 1)
    return smooth


def _paint(rng: np.random.Generator, luma: float, width: int, height: int) -> Grid:
    """Return a surface around one brightness: float32 (H, W, 3)."""
    spread = rng.uniform(0, 0.1)
    ends = [_colour(rng, float(np.clip(luma + step, 0.02, 0.98))) for step in (-spread, spread)]
    mix = _blend_map(rng, width, height)[..., None]
    surface: Grid = ends[0] + mix * (ends[1] - ends[0])
    return surface


def _finished(pixels: Grid, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add grain, and round to uint8 (H, W, 3)."""
    grain = rng.standard_normal((*pixels.shape[:2], 1), dtype=np.float32)
    noisy = pixels + grain * rng.uniform(0, 0.05)
    return (np.clip(noisy, 0, 1) * 255 + 0.5).astype(np.uint8)


def draw(label: str, rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Draw an RGB picture of a class in CLASSES, `width` x `height` pixels; one generator state, one picture."""
    mask = _mask(label, rng, width, height)[..., None]
    figure, backdrop = _lumas(rng)
    below = _paint(rng, backdrop, width, height)
    above = _paint(rng, figure, width, height)
    return Image.fromarray(_finished(below + mask * (above - below), rng))


def draw_cutout(label: str, rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Draw an RGBA picture of the figure alone, dark enough to stand out on white."""
    mask = _mask(label, rng, width, height)
    figure = _finished(_paint(rng, rng.uniform(0.05, 0.6), width, height), rng)
    return Image.fromarray(np.dstack([figure, (mask * 255 + 0.5).astype(np.uint8)]))
