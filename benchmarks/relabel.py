"""How fast a head labels stored embeddings: `python -m benchmarks.relabel [--s3]`.

It writes an output of made-up vectors, and labels it twice: in this process, and in the tasks of a Ray cluster.
"""

import argparse
import os
import time
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.index import STORAGE, Vectors, write
from pipeline.cluster import connection
from pipeline.labels import head as heads, relabelling
from pipeline.labels.head import Head, HeadDescription, Origin
from tests.support import seaweed


def save_head(folder: str, dim: int, classes: int) -> None:
    """Save a head with random weights for the space of the made-up output."""
    rng = np.random.default_rng(0)
    description = HeadDescription(
        labels=tuple(f"class {number}" for number in range(classes)),
        kind="softmax",
        input="raw",
        fingerprint="made-up",
        made=Origin(by="benchmark", at="2024-01-01"),
    )
    weight = rng.standard_normal((classes, dim), dtype=np.float32)
    heads.save(Head(description, weight, np.zeros(classes, np.float32)), folder, STORAGE)


def measured(output: str, head: str, name: str, alone: bool) -> None:
    """Label the output, and print the rows in a second."""
    relabelling.ALONE_ROWS = 1 << 62 if alone else 0
    started = time.perf_counter()
    found = relabelling.relabel(output, head, STORAGE, name=name)
    print(f"{name}: {found.rows / (time.perf_counter() - started):,.0f} rows/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--s3", action="store_true", help="on an S3 server of this machine")
    for option, default in (("rows", 1_000_000), ("dim", 768), ("classes", 100)):
        parser.add_argument(f"--{option}", type=int, default=default)
    options = parser.parse_args()
    with TemporaryDirectory() as folder, seaweed.running(Path(folder)) if options.s3 else nullcontext() as server:
        if server:
            os.environ |= server.environment
            server.filesystem().mkdir("lake")
        output, head = "s3://lake/out" if server else f"{folder}/out", f"{folder}/head"
        write(output, Vectors(options.dim, 0.7), options.rows)
        save_head(head, options.dim, options.classes)
        measured(output, head, "one-process", alone=True)
        with connection.connected(None):
            measured(output, head, "ray", alone=False)


if __name__ == "__main__":
    main()
