"""The image classification pipeline of transformers, which gives labels only."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import transformers
from PIL import Image

IMAGES, BATCH = 48, 8


def job(model: str, images: Sequence[Path]) -> Callable[[], float]:
    """Load the pipeline; return what measures it on some of the images."""
    classify = transformers.pipeline("image-classification", model=model)
    few = images[:IMAGES]

    def once() -> float:
        started_s = time.perf_counter()
        classify([Image.open(path).convert("RGB") for path in few], batch_size=BATCH)
        return len(few) / (time.perf_counter() - started_s)

    return once
