"""A simulated accelerator of a fixed rate, for benchmarks of what the stages around it cost.

The device works on its batches one after the other while the process goes on, and logs when it works. The
predictor around it and the whole data path are the real ones.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.data import Dataset

from pipeline.cluster import pools
from pipeline.cluster.pools import Pool
from pipeline.cluster.workers import Predictor
from pipeline.config import RunConfig
from pipeline.engines.base import Engine, Scored
from pipeline.planning.claim import Assignment

DIM, TOP_K = 768, 5
"""Shape of the results that the device makes up: a ViT-B's embedding, and the default number of labels."""


class FixedRateEngine(Engine):
    """A device that takes `image_s` seconds an image. It logs begin and end of each batch in epoch seconds."""

    device, precision, in_flight = "simulated", "fp32", 2

    def __init__(self, *_model: Any, image_s: float, log: Path, **_options: Any) -> None:
        self._image_s, self._log, self._free_s = image_s, log, 0.0

    def start(self, pixels: NDArray[np.uint8]) -> Callable[[], Scored]:
        begin_s, images = max(time.time(), self._free_s), len(pixels)
        self._free_s = end_s = begin_s + images * self._image_s
        with self._log.open("a") as log:
            log.write(f"{begin_s} {end_s}\n")

        def wait() -> Scored:
            time.sleep(max(0.0, end_s - time.time()))
            indices = np.tile(np.arange(TOP_K, dtype=np.int32), (images, 1))
            scores = np.full((images, TOP_K), 1 / TOP_K, np.float32)
            vectors = np.random.default_rng(0).standard_normal((images, DIM)).astype(np.float32)
            return Scored(indices, scores, vectors)

        return wait


def predicted(
    decoded: Dataset,
    pool: Pool,
    settings: RunConfig,
    assignment: Assignment,
    block_rows: int,
    rate: float,
    log: Path,
) -> Dataset:
    """Run the predictor stage on devices of `rate` images/s."""
    return pools.map_actors(
        decoded,
        Predictor,
        pool,
        config=settings,
        weights_sha256=assignment.target.model.weights_sha256,
        engine="torch",
        threads=1,
        share=1.0,
        block_rows=block_rows,
        output=assignment.target.output,
        run_id=assignment.run_id,
        load_engine=partial(FixedRateEngine, image_s=1 / rate, log=log),
    )


def busy_share(log: Path) -> float:
    """Return the share of the second half of a run's time in which its only device works."""
    spans = np.loadtxt(log)
    middle, end = (spans[0, 0] + spans[-1, 1]) / 2, spans[-1, 1]
    return float((spans[:, 1] - np.maximum(spans[:, 0], middle)).clip(0).sum() / (end - middle))
