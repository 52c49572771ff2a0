"""What committing costs and what a kill loses: `python -m benchmarks.commits overhead|loss [--s3]`.

Real runs on a Ray cluster of this machine, but without images. Instead of decoding and predicting, an actor sleeps
so that it gives 500 rows a second, with labels and 768-dimensional vectors.

overhead  wall time of runs that commit every 5 s, divided by that of runs that commit once, alternating
loss      how many seconds of predicted rows are lost when the driver is killed at random moments
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset

from benchmarks.fake_stages import as_decoded, as_predicted
from benchmarks.inputs import DEMO_MODEL
from pipeline import config
from pipeline.cluster.stages import Setup, Stages
from pipeline.config import RunConfig
from pipeline.output.table import Predictions
from pipeline.planning.account import Progress
from pipeline.run import run
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import join
from tests.support import seaweed

RATE = 500.0
DIM, CLASSES, TOP_K = 768, 1000, 5


class Sleeper:
    """Pending rows -> rows with made-up labels and vectors, `RATE` a second."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._due_s = time.monotonic()

    def __call__(self, rows: pa.Table) -> pa.Table:
        shape = (rows.num_rows, TOP_K)
        indices = self._random.integers(0, CLASSES, shape, dtype=np.int32)
        vectors = self._random.standard_normal((rows.num_rows, DIM), dtype=np.float32)
        scores = self._random.random(shape, dtype=np.float32)
        found = as_predicted(as_decoded(rows), CLASSES, indices, scores, vectors)
        self._due_s = max(self._due_s, time.monotonic() - 0.1) + rows.num_rows / RATE
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        return found


def sleeping(rows: Dataset, setup: Setup) -> Dataset:
    """Take the place of both stages."""
    stage = {"compute": ActorPoolStrategy(size=1), "num_cpus": 0.5, "batch_size": None, "batch_format": "pyarrow"}
    return rows.map_batches(Sleeper, **stage)


SLEEPING = Stages(images=lambda rows, setup: rows, scored=sleeping)


def settings_of(folder: str, rows: int, interval_s: float, scratch: Path) -> RunConfig:
    """Return a config whose manifest has this number of rows."""
    manifest = scratch / f"{rows}.csv"
    manifest.write_text("uri\n" + "".join(f"/{number:09}\n" for number in range(rows)))
    raw = {"manifest": {"path": str(manifest)}, "model": {"name": str(DEMO_MODEL)}, "output": {"path": folder}}
    return config.parse(raw, [f"output.commit_interval_s={interval_s}", "failures.max_rate=1"])


def once(folder: str, rows: int, interval_s: float, scratch: Path) -> tuple[float, int]:
    """Run once; return the seconds from the first block to the end, and the number of commits."""
    output, first_s = join(folder, uuid4().hex), list[float]()

    def note(progress: Progress) -> None:
        if not first_s:
            first_s.append(time.monotonic())

    run(settings_of(output, rows, interval_s, scratch), on_progress=note, stages=SLEEPING)
    table = Predictions.open(output, Storage())
    assert table is not None
    return time.monotonic() - first_s[0], table.version - 1


def overhead(folder: str, rows: int, repeats: int, scratch: Path) -> None:
    """Compare runs that commit often with runs that commit once."""
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    once(folder, 2000, 5.0, scratch)  # warm
    ratios = []
    for _ in range(repeats):
        rare, _ = once(folder, rows, 10_000.0, scratch)
        often, commits = once(folder, rows, 5.0, scratch)
        ratios.append(often / rare)
        print(f"{often:.2f} s with {commits} commits, {rare:.2f} s without: {often / rare - 1:+.2%}", flush=True)
    print(f"median {statistics.median(ratios) - 1:+.2%} ({min(ratios) - 1:+.2%} to {max(ratios) - 1:+.2%})")


def drive(folder: str, rows: int, interval_s: float, scratch: Path) -> None:
    """Run, and print when how many rows are predicted, until this process is killed."""

    def note(progress: Progress) -> None:
        print(json.dumps([time.monotonic(), progress.predicted]), flush=True)

    run(settings_of(folder, rows, interval_s, scratch), on_progress=note, stages=SLEEPING)


def loss(folder: str, rows: int, repeats: int, scratch: Path, interval_s: float = 5.0) -> None:
    """Kill drivers at random moments, and measure what is lost."""
    lost = []
    for _ in range(repeats):
        output = join(folder, uuid4().hex)
        arguments = ["drive", "--folder", output, "--rows", str(rows)]
        command = [sys.executable, "-m", "benchmarks.commits", *arguments]
        with subprocess.Popen(  # noqa: S603
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            seen = [json.loads(process.stdout.readline())]
            until = time.monotonic() + random.uniform(3, rows / RATE * 0.8)  # noqa: S311
            while time.monotonic() < until:
                seen.append(json.loads(process.stdout.readline()))
            killed = time.monotonic()
            process.send_signal(signal.SIGKILL)
        table = Predictions.open(output, Storage())
        assert table is not None
        committed = table.newest().to_pyarrow_dataset().count_rows()
        first_lost = next((at for at, predicted in seen if predicted > committed), killed)
        lost.append(killed - first_lost)
        print(f"{seen[-1][1] - committed} of {seen[-1][1]} rows, {lost[-1]:.1f} s of work", flush=True)
    print(f"commit_interval_s {interval_s:g}: at most {max(lost):.1f} s, median {statistics.median(lost):.1f} s")


def _s3(scratch: Path, stack: ExitStack) -> str:
    """Start an S3 server that ends with the stack; return a prefix on it."""
    (scratch / "s3").mkdir()
    server = stack.enter_context(seaweed.running(scratch / "s3"))
    os.environ.update(server.environment)
    server.filesystem().mkdir("bench")
    return "s3://bench/out"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "loss", "drive"])
    parser.add_argument("--folder", help="a folder or prefix for the outputs; default: a temporary folder")
    parser.add_argument("--s3", action="store_true", help="start a SeaweedFS server and write to it")
    parser.add_argument("--rows", type=int, default=15_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="lakelens-commits-") as scratch, ExitStack() as stack:
        folder = options.folder or (_s3(Path(scratch), stack) if options.s3 else f"{scratch}/out")
        if options.what == "drive":
            drive(folder, options.rows, 5.0, Path(scratch))
        else:
            {"overhead": overhead, "loss": loss}[options.what](
                folder, options.rows, options.repeats, Path(scratch)
            )


if __name__ == "__main__":
    main()
