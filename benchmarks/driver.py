"""What the driver of a long run needs: `python -m benchmarks.driver [--rows 1850000] [--rate 5600]`.

A real run on a Ray cluster of this machine (plan, two pools, blocks by reference, files, commits), but for the
images: the stages make up their results, with short vectors, so that thousands of rows a second pass two cores.
Every second the resident memory of the driver and what is predicted and committed are noted. Printed: rows/s, the
slope of the driver's memory over all rows and over all but the first 18 %, and how far commits were behind.
"""

import argparse
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from ray.data import Dataset

from pipeline import config, run, schema
from pipeline.cluster import pools, stages
from pipeline.cluster.stages import Setup, Stages
from pipeline.config import PoolConfig, RunConfig, WorkersConfig
from pipeline.output.prediction_rows import Outputs
from pipeline.output.table import Predictions
from pipeline.planning.account import Progress
from pipeline.storage.filesystems import Storage

DIM, TOP_K = 4, 1
BLOCK = 512
"""Rows of a block: those of an accelerator of 100 images/s and more."""
PIXELS = b"\0" * 3
MODEL = Path(__file__).parents[1] / "pipeline" / "demo" / "model"
DATASETS = 10
COUNTED_S = 1.0
WARM = 0.18
"""Share of the rows after which what is loaded once is there: of 1.85 million 1.5 are left."""


class FakeDecoder:
    """Pending rows -> the same rows as if they were decoded, to one pixel."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        for field in schema.DECODED:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
        return rows.append_column(schema.PIXELS, pa.array([PIXELS] * rows.num_rows, schema.PIXELS_TYPE))


class FakePredictor:
    """Decoded rows -> rows with made-up labels and vectors, at most `rate` a second."""

    def __init__(self, rate: float) -> None:
        self._rate, self._due = rate, time.monotonic()

    def __call__(self, rows: pa.Table) -> pa.Table:
        outputs, count = Outputs(rows.drop_columns([schema.PIXELS]), ["a", "b"], normalize=True), rows.num_rows
        ones = np.ones((count, TOP_K), np.float32)
        outputs.add(np.zeros((count, TOP_K), np.int32), ones, np.ones((count, DIM), np.float32))
        self._due = max(self._due, time.monotonic() - 1) + count / self._rate
        time.sleep(max(0.0, self._due - time.monotonic()))
        return outputs.table("run")


def settings_of(folder: Path, rows: int) -> RunConfig:
    """A config whose manifest has so many rows, of ten datasets."""
    manifest = folder / "manifest.parquet"
    uris = pa.array([f"s3://lake/images/{number:012}.jpg" for number in range(rows)])
    names = pa.array([f"dataset-{DATASETS * number // rows}" for number in range(rows)])
    pq.write_table(pa.table({"uri": uris, "dataset": names}), manifest)
    raw: dict[str, Any] = {"manifest": {"path": str(manifest)}, "model": {"name": str(MODEL)}}
    one = PoolConfig(max_size=1)
    parsed = config.parse(raw | {"output": {"path": str(folder / "out")}}, ["output.commit_interval_s=30"])
    return parsed.model_copy(update={"workers": WorkersConfig(decoders=one, predictors=one)})


class Watch:
    """Notes the driver's memory, and the rows that are predicted and committed."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, int, int, int]] = []
        self._process, self._ended = psutil.Process(), threading.Event()
        self._progress: Progress | None = None
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def note(self, progress: Progress) -> None:
        self._progress = progress

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(COUNTED_S):
            if self._progress is not None:
                now = self._progress
                done = now.account.total.ok + now.account.total.failed
                self.samples.append((time.monotonic(), now.predicted, done, self._process.memory_info().rss))


def told(samples: list[tuple[float, int, int, int]], commits: int) -> dict[str, float]:
    """The figures: of the first to the last sample, and the memory's slope over all but the first rows."""
    times, predicted, committed, memory = (np.array(column, np.float64) for column in zip(*samples, strict=True))
    late = predicted >= predicted[-1] * WARM
    slope = np.polyfit(predicted[late] / 1e6, memory[late] / 1e6, 1)[0]
    whole = np.polyfit(predicted / 1e6, memory / 1e6, 1)[0]
    return {
        "rows": predicted[-1],
        "seconds": times[-1] - times[0],
        "rows_per_s": (predicted[-1] - predicted[0]) / (times[-1] - times[0]),
        "rss_mb_first": memory[0] / 1e6,
        "rss_mb_last": memory[-1] / 1e6,
        "rss_mb_per_million_rows": whole,
        "rss_mb_per_million_rows_warm": slope,
        "driver_cpu_s": sum(psutil.Process().cpu_times()[:2]),
        "uncommitted_rows_most": float((predicted - committed).max()),
        "commits": commits,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_850_000)
    parser.add_argument("--rate", type=float, default=1e9, help="rows/s at most")
    options = parser.parse_args()

    def rows(setup: Setup) -> Dataset:
        return stages.rows(replace(setup, block_rows=BLOCK))

    def images(rows: Dataset, setup: Setup) -> Dataset:
        return pools.map_actors(rows, FakeDecoder, setup.pools.decoders, run_id=setup.assignment.run_id)

    def scored(images: Dataset, setup: Setup) -> Dataset:
        fake = {"run_id": setup.assignment.run_id, "rate": options.rate}
        return pools.map_actors(images, FakePredictor, setup.pools.predictors, **fake)

    with TemporaryDirectory(prefix="lakelens-driver-") as folder:
        settings, watch = settings_of(Path(folder), options.rows), Watch()
        try:
            summary = run.run(settings, on_progress=watch.note, stages=Stages(rows, images, scored))
        finally:
            watch.end()
        table = Predictions.open(summary.output, Storage())
        assert table is not None
        assert table.newest().to_pyarrow_dataset().count_rows() == options.rows
    for sample in watch.samples[:: max(1, len(watch.samples) // 30)]:
        print(
            "{:.0f} s  {:,} predicted  {:,} committed  {:.0f} MB".format(
                sample[0] - watch.samples[0][0], *sample[1:3], sample[3] / 1e6
            )
        )
    print(json.dumps({name: round(value, 2) for name, value in told(watch.samples, table.version - 1).items()}))
    print(json.dumps(summary.facts()["worker_seconds"]))


if __name__ == "__main__":
    main()
