"""Images read, decoded and resized, handed to a stage that does nothing: how fast each way feeds a device."""

import json
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks import steady
from pipeline.cluster import connection, node_resources, pools, stages
from pipeline.cluster.run_work import RunWork
from pipeline.cluster.stages import Setup
from pipeline.config import RunConfig
from pipeline.planning import claim

ROWS = 256
"""Rows of a block: what an accelerator gets."""
PEERS = Path(__file__).parent / ".peers" / "bin" / "python"


class Nothing:
    """Takes the pixels and drops them."""

    def __init__(self, run_id: str) -> None:
        pass

    def __call__(self, rows: pa.Table) -> pa.Table:
        return rows.select(["image_id"])


def lakelens(settings: RunConfig) -> float:
    """Images/s of the stages before the predictor."""
    run_id = uuid4().hex
    assignment = claim.plan_and_claim(settings, run_id)
    assert isinstance(assignment, claim.Assignment)
    with assignment.heartbeat, connection.connected(None), RunWork(run_id) as work:
        sizes = pools.plan_pools(settings.workers, node_resources.live(), None)
        setup = Setup(settings, assignment, sizes, "", ROWS)
        fed = pools.map_actors(stages.images(stages.rows(setup), setup), Nothing, sizes.predictors, run_id=run_id)
        return steady.rate([(time.perf_counter(), rows) for _, rows in work.blocks(fed)])


def pillow(paths: Sequence[Path], size: int, processes: int) -> float:
    """Images/s of bare processes that open, convert and resize, and keep nothing."""
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(_decoded, [(str(paths[0]), size)] * processes))  # they have started
        work = [(str(path), size) for path in paths]
        started = time.perf_counter()
        done = sum(pool.map(_decoded, work, chunksize=32))
        return done / (time.perf_counter() - started)


def _decoded(work: tuple[str, int]) -> int:
    path, size = work
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    return int(pixels.shape[2] == 3)


def daft(uris: Sequence[str], size: int) -> dict[str, float]:
    """Images/s of Daft, in an environment of its own; nothing if that is not there."""
    if not PEERS.exists():
        return {}
    script = Path(__file__).with_name("daft_feed.py")
    command = [str(PEERS), str(script), str(size)]
    done = subprocess.run(command, input=json.dumps(uris), capture_output=True, text=True, check=True)  # noqa: S603
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"feed: Daft": float(said["images_per_s"])}
