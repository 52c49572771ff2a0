"""Bare Pillow processes that open, convert and resize images, and keep nothing."""

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

CHUNK = 32
"""Images that a process gets at once."""


def feed(paths: Sequence[Path], size: int, processes: int) -> float:
    """Measure the images/s of all processes together."""
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(_decoded, [(str(paths[0]), size)] * processes))  # so that all have started
        work = [(str(path), size) for path in paths]
        started_s = time.perf_counter()
        done = sum(pool.map(_decoded, work, chunksize=CHUNK))
        return done / (time.perf_counter() - started_s)


def _decoded(work: tuple[str, int]) -> int:
    path, size = work
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    return int(pixels.shape[2] == 3)
