"""What an index costs, and how well and fast searches in it find: `python -m benchmarks.index [--s3]`.

It writes an output of made-up vectors in clusters, and builds its index in a process of its own, whose memory it
measures. Queries are further vectors of the same clusters. Exact search tells which rows are nearest. Then 1,000
rows come and 100 of the old ones change, and the index is updated. `--unlike 0.7` is the length of what a vector
has of its own, against 1 for its cluster.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import schema
from pipeline.output.fragment_files import write_fragments, write_remaining_rows
from pipeline.output.layout import Layout
from pipeline.output.reader import PredictionsReader
from pipeline.output.table import Predictions
from pipeline.search import exact
from pipeline.search.index import Index, open_index
from pipeline.search.index_update import update
from pipeline.storage.filesystems import Storage
from tests.support import seaweed

STORAGE = Storage()
FILE_ROWS = 32_768
CLUSTERS, DATASETS, LABELS = 500, 10, 1000
QUERIES, K = 200, 10
NEW, CHANGED = 1_000, 100
SAMPLE_S = 0.02


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Clustered vectors of unit length."""

    dim: int
    unlike: float

    def made(self, count: int, seed: int) -> NDArray[np.float32]:
        centres = np.random.default_rng(0).standard_normal((CLUSTERS, self.dim), dtype=np.float32)
        rng = np.random.default_rng([1, seed])
        own = rng.standard_normal((count, self.dim), dtype=np.float32)
        vectors = centres[rng.integers(0, CLUSTERS, count)] + self.unlike * own
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def rows_of(vectors: Vectors, first: int, count: int, run_id: str) -> pa.Table:
    """Return ok rows of some datasets, with the columns that a run writes."""
    numbers = range(first, first + count)
    values = vectors.made(count, first).astype(np.float16).astype(np.float32)
    ids = pa.array([f"s3://lake/images/{number:09}.jpg" for number in numbers])
    made: dict[str, Any] = {
        "image_id": ids,
        "uri": ids,
        "dataset": pa.array([f"set-{number % DATASETS}" for number in numbers]),
        "outcome": pa.repeat(schema.OK, count),
        "label": pa.array([f"class {number % LABELS}" for number in numbers]),
        "score": pa.array(np.linspace(0, 1, count, dtype=np.float32)),
        "embedding": pa.FixedSizeListArray.from_arrays(values.ravel(), vectors.dim).cast(pa.list_(pa.float32())),
        "width": pa.repeat(pa.scalar(640, pa.int32()), count),
        "height": pa.repeat(pa.scalar(480, pa.int32()), count),
        "run_id": pa.repeat(run_id, count),
        "finished_at": pa.repeat(pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC")), count),
    }
    columns = schema.scored([])
    return pa.table([made.get(one.name, pa.nulls(count, one.type)) for one in columns], columns)


def write(output: str, vectors: Vectors, rows: int) -> None:
    """Write and commit the output."""
    table = Predictions.create(output, STORAGE, [])
    epoch = table.claim("one", [])
    assert epoch is not None
    for first in range(0, rows, FILE_ROWS):
        block = rows_of(vectors, first, min(FILE_ROWS, rows - first), "one")
        written = write_fragments(block, output=output, storage=STORAGE, epoch=epoch)
        table.commit([one.fragment for one in written], "one", epoch)
    STORAGE.write_json(Layout(output).space, {"format": 2, "fingerprint": "made-up", "dim": vectors.dim})


def change(output: str, vectors: Vectors, rows: int) -> None:
    """Commit new rows, and other vectors for some of the first file."""
    table = Predictions.existing(output, STORAGE)
    epoch = table.claim("two", [])
    assert epoch is not None
    place: dict[str, Any] = {"output": output, "storage": STORAGE, "epoch": epoch}
    again = rows_of(Vectors(vectors.dim, vectors.unlike * 1.1), 0, CHANGED, "two")
    new = pa.concat_tables([rows_of(vectors, rows, NEW, "two"), again])
    written = [one.fragment for one in write_fragments(new, **place)]
    remaining = {
        path: write_remaining_rows(path, [one.path for one in written], **place) for path in table.paths()
    }
    table.commit(written, "two", epoch, {path: rest.fragment for path, rest in remaining.items() if rest.removed})


def measured_update(output: str) -> dict[str, Any]:
    """Update the index in a process of its own. Return its report, with its `memory` in bytes and `cpu` in s."""
    command = [sys.executable, "-m", "benchmarks.index", "--update", output]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    watched, most, cpu = psutil.Process(process.pid), 0, 0.0
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            most = max(most, watched.memory_info().rss)
            cpu = max(cpu, sum(watched.cpu_times()[:2]))
        time.sleep(SAMPLE_S)
    out, _ = process.communicate()
    assert process.returncode == 0
    return {**json.loads(out), "memory": most, "cpu": cpu}


def measured_searches(
    index: Index, reader: PredictionsReader, queries: NDArray[np.float32]
) -> tuple[float, float]:
    """Return the recall of searches, and their median time in seconds."""
    true = exact.nearest_ids(reader, queries, K)
    found, took = 0, list[float]()
    for query, nearest in zip(queries, true, strict=True):
        started = time.perf_counter()
        hits = index.nearest(query, K)
        took.append(time.perf_counter() - started)
        found += len({*hits["image_id"].to_pylist()} & {*nearest["image_id"].to_pylist()})
    return found / (K * len(queries)), statistics.median(took)


def size_of(uri: str) -> int:
    fs, path = STORAGE.filesystem(uri)
    return int(fs.du(path))


def measure(output: str, vectors: Vectors, rows: int) -> None:
    write(output, vectors, rows)
    index_uri = Layout(output).index
    queries = vectors.made(QUERIES, 10**6)
    before = 0
    for name in ("built", "updated"):
        if name == "updated":
            change(output, vectors, rows)
        report = measured_update(output)
        size = size_of(index_uri)
        index = open_index(output, STORAGE)
        assert index is not None
        recall, took = measured_searches(index, PredictionsReader.open(output, STORAGE), queries)
        share = f", {(size - before) / before:.2%} of the index" if before else ""
        print(
            f"{name}: {report['rows']:,} rows in {report['seconds']:.1f} s ({report['cpu']:.0f} s of CPU), "
            f"{report['memory'] / 1e9:.2f} GB; "
            f"{(size - before) / 1e6:.1f} MB written{share}; own recall {report['recall']:.4f} with nprobes "
            f"{report['nprobes']}, refine {report['refine']}; recall@{K} of {QUERIES} other queries {recall:.4f}, "
            f"p50 {took * 1e3:.1f} ms",
            flush=True,
        )
        before = size


def main() -> None:
    """Measure, or update one index and print the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--unlike", type=float, default=0.7)
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--update", metavar="OUTPUT", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.update:
        print(json.dumps(dataclasses.asdict(update(asked.update, STORAGE))))
        return
    with TemporaryDirectory() as folder, seaweed.running(Path(folder)) if asked.s3 else nullcontext() as server:
        if server:
            os.environ |= server.environment
            server.filesystem().mkdir("index")
        output = "s3://index/out" if server else f"{folder}/out"
        measure(output, Vectors(asked.dim, asked.unlike), asked.rows)


if __name__ == "__main__":
    main()
