"""What the driver of a long run needs: `python -m benchmarks.driver [--rows 1850000] [--rate 5600]`.

A real run on a Ray cluster of this machine (plan, two pools, blocks by reference, files, commits), but without
images: the stages make up their results, with short vectors, so that two cores pass thousands of rows a second.
Every second it samples the resident memory of the driver and the rows that are predicted and committed. Prints
rows/s, how far commits were behind, and the slope of the driver's memory, over all rows and without the first 18
%.
"""

import argparse
import json
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import pyarrow as pa
from ray.data import Dataset

from benchmarks.fake_stages import as_decoded, as_predicted
from benchmarks.inputs import settings_of_rows
from pipeline import schema
from pipeline.cluster import pools, stages
from pipeline.cluster.stages import Setup, Stages
from pipeline.output.table import Predictions
from pipeline.planning.account import Progress
from pipeline.run import run
from pipeline.storage.filesystems import Storage

DIM, CLASSES, TOP_K = 4, 2, 1
BLOCK_ROWS = 512
"""Rows of a block: those of an accelerator of 100 images/s and more."""
PIXELS = b"\0" * 3
SAMPLE_S = 1.0
WARM = 0.18
"""Share of the rows after which everything that loads once is loaded; it leaves 1.5 of 1.85 million rows."""
PRINTED = 30
"""Samples that are printed, at most twice as many."""


class FakeDecoder:
    """Pending rows -> the same rows as if they were decoded, to one pixel."""

    def __init__(self, run_id: str) -> None:
        pass

    def __call__(self, rows: pa.Table) -> pa.Table:
        pixels = pa.array([PIXELS] * rows.num_rows, schema.PIXELS_TYPE)
        return as_decoded(rows).append_column(schema.PIXELS, pixels)


class FakePredictor:
    """Decoded rows -> rows with made-up labels and vectors, at most `rate` a second."""

    def __init__(self, run_id: str, rate: float) -> None:
        self._rate, self._due_s = rate, time.monotonic()

    def __call__(self, rows: pa.Table) -> pa.Table:
        shape = (rows.num_rows, TOP_K)
        indices, scores = np.zeros(shape, np.int32), np.ones(shape, np.float32)
        vectors = np.ones((rows.num_rows, DIM), np.float32)
        found = as_predicted(rows.drop_columns([schema.PIXELS]), CLASSES, indices, scores, vectors)
        self._due_s = max(self._due_s, time.monotonic() - 1) + rows.num_rows / self._rate
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        return found


def fake_stages(rate: float) -> Stages:
    """Make stages whose predictor gives at most `rate` rows a second."""

    def rows(setup: Setup) -> Dataset:
        return stages.rows(replace(setup, block_rows=BLOCK_ROWS))

    def images(rows: Dataset, setup: Setup) -> Dataset:
        return pools.map_actors(rows, FakeDecoder, setup.pools.decoders, run_id=setup.assignment.run_id)

    def scored(images: Dataset, setup: Setup) -> Dataset:
        run_id = setup.assignment.run_id
        return pools.map_actors(images, FakePredictor, setup.pools.predictors, run_id=run_id, rate=rate)

    return Stages(rows, images, scored)


@dataclass(frozen=True)
class Sample:
    """The state of a run at one time: rows, and bytes of the driver's memory."""

    at_s: float
    predicted: int
    committed: int
    memory: int


class Sampler:
    """Samples the state of a run every second, in a thread of its own, inside its context."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._process, self._ended = psutil.Process(), threading.Event()
        self._progress: Progress | None = None
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._ended.set()
        self._thread.join()

    def note(self, progress: Progress) -> None:
        """Take the run's progress."""
        self._progress = progress

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            if self._progress is not None:
                total = self._progress.account.total
                memory = self._process.memory_info().rss
                committed = total.ok + total.failed
                self.samples.append(Sample(time.monotonic(), self._progress.predicted, committed, memory))


def figures(samples: list[Sample], commits: int) -> dict[str, float]:
    """Return what the samples show, from the first to the last one; memory in MB."""
    times, predicted, committed, memory = (
        np.array([getattr(sample, name) for sample in samples], np.float64)
        for name in ("at_s", "predicted", "committed", "memory")
    )
    late = predicted >= predicted[-1] * WARM
    return {
        "rows": predicted[-1],
        "seconds": times[-1] - times[0],
        "rows_per_s": (predicted[-1] - predicted[0]) / (times[-1] - times[0]),
        "rss_mb_first": memory[0] / 1e6,
        "rss_mb_last": memory[-1] / 1e6,
        "rss_mb_per_million_rows": np.polyfit(predicted / 1e6, memory / 1e6, 1)[0],
        "rss_mb_per_million_rows_warm": np.polyfit(predicted[late] / 1e6, memory[late] / 1e6, 1)[0],
        "driver_cpu_s": sum(psutil.Process().cpu_times()[:2]),
        "uncommitted_rows_most": float((predicted - committed).max()),
        "commits": commits,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_850_000)
    parser.add_argument("--rate", type=float, default=1e9, help="rows/s at most")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="lakelens-driver-") as folder:
        settings = settings_of_rows(Path(folder), options.rows)
        with Sampler() as sampler:
            summary = run(settings, on_progress=sampler.note, stages=fake_stages(options.rate))
        table = Predictions.open(summary.output, Storage())
        assert table is not None
        assert table.newest().to_pyarrow_dataset().count_rows() == options.rows
    samples = sampler.samples
    for one in samples[:: max(1, len(samples) // PRINTED)]:
        print(
            f"{one.at_s - samples[0].at_s:.0f} s  {one.predicted:,} predicted  {one.committed:,} committed  "
            f"{one.memory / 1e6:.0f} MB"
        )
    print(json.dumps({name: round(value, 2) for name, value in figures(samples, table.version - 1).items()}))
    print(json.dumps(summary.facts()["worker_seconds"]))


if __name__ == "__main__":
    main()
