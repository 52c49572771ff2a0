"""How busy an accelerator is kept: `python -m benchmarks.busy --images FOLDER`.

First the rate of the feed is measured. Then, on the same Ray cluster, which has a logical GPU, the predictor has
an engine that sleeps for each image: a device that takes 0.8 of what the feed gives, and ideally always has work.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import ray
from numpy.typing import NDArray

from benchmarks import feed
from benchmarks.bench import emptied, images_in, settings_for, vit_b16
from pipeline import engines, run
from pipeline.cluster import connection, node_resources, pools
from pipeline.cluster.started import Started
from pipeline.cluster.workers import Predictor
from pipeline.config import RunConfig
from pipeline.planning import claim

SHARE = 0.8
"""What the device takes of what the feed gives."""
TINY = {
    **{"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8},
    **{"patch_size": 32, "num_labels": 10},
}
"""A model with input of the usual size that computes next to nothing."""


class SleepingEngine(engines.Engine):
    """A device of a fixed rate that does its batches one after the other, while the process goes on."""

    device, precision, in_flight = "sleep", "fp32", 2

    def __init__(self, image_s: float, log: Path) -> None:
        self._image_s, self._log, self._free_s = image_s, log, 0.0

    def start(self, pixels: NDArray[np.uint8]) -> Callable[[], engines.Scored]:
        begun = max(time.time(), self._free_s)
        self._free_s = ends = begun + len(pixels) * self._image_s
        with self._log.open("a") as log:
            log.write(f"{begun} {ends}\n")

        def wait() -> engines.Scored:
            time.sleep(max(0.0, ends - time.time()))
            found = np.zeros((len(pixels), 1), np.int32)
            return engines.Scored(found, found.astype(np.float32), np.ones((len(pixels), 768), np.float32))

        return wait


class SleepingPredictor(Predictor):
    """The real one, but for its engine."""

    def __init__(self, image_s: float, log: Path, **settings: Any) -> None:
        super().__init__(**settings)
        self._engine = SleepingEngine(image_s, log)


def busy(settings: RunConfig, image_s: float, log: Path) -> float:
    """The share of the second half of a run's time in which the device works."""
    run_id = uuid4().hex
    assignment = claim.assign(settings, run_id)
    assert assignment.heartbeat is not None
    with connection.connected(None), Started(run_id) as started:
        sizes = pools.sized(settings.workers, node_resources.alive(), "GPU")
        scored = pools.pooled(
            run.decoded(settings, assignment, sizes, feed.ROWS),
            SleepingPredictor,
            sizes.predictors,
            image_s=image_s,
            log=log,
            config=settings,
            weights_sha256=assignment.target.model.weights_sha256,
            engine="torch",
            threads=1,
            share=1.0,
            block_rows=feed.ROWS,
            output=assignment.target.output,
            run_id=run_id,
        )
        list(started.blocks(scored))
    assignment.heartbeat.stop()
    spans = np.loadtxt(log)
    middle, end = (spans[0, 0] + spans[-1, 1]) / 2, spans[-1, 1]
    return float((spans[:, 1] - np.maximum(spans[:, 0], middle)).clip(0).sum() / (end - middle))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of images; drawn if not given")
    parser.add_argument("--count", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="lakelens-busy-"))
    ray.init(address="local", num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        images = images_in(options.images, work, options.count)
        model = vit_b16(work / "model", **TINY)
        settings = settings_for(images, model, "auto", work)
        shares = []
        for repeat in range(options.repeats):
            rate = feed.lakelens(emptied(settings))
            shares.append(busy(emptied(settings), 1 / (SHARE * rate), work / f"{repeat}.log"))
            print(f"feed {rate:.0f} images/s; a device of {SHARE * rate:.0f} images/s is busy {shares[-1]:.1%}")
        print(f"median {statistics.median(shares):.1%}")
    finally:
        ray.shutdown()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
