"""LakeLens: its bare engine, whole jobs, and the feed of its predictors."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import torch

from benchmarks import steady_rate
from benchmarks.inputs import without_output
from pipeline.cluster import connection, node_resources, pools, stages
from pipeline.cluster.run_work import RunWork
from pipeline.cluster.stages import Setup
from pipeline.config import RunConfig
from pipeline.engines import choice, loading
from pipeline.engines.batch_sizer import BatchSizer
from pipeline.engines.batching import MicroBatches
from pipeline.images.decode import decode
from pipeline.images.options import DecodeOptions
from pipeline.models.model import resolve
from pipeline.planning import claim
from pipeline.planning.account import Progress
from pipeline.run import run
from pipeline.storage.filesystems import Storage

RESIDENT = 64
"""Images that the bare engine has in memory."""
MAX_BATCH = 32
"""Largest micro-batch that the bare engine tries."""
BLOCK_ROWS = 256
"""Rows of a block in the feed: what an accelerator gets."""


def bare_engine(settings: RunConfig, images: Sequence[Path]) -> Callable[[], float]:
    """Load the engine and find its best micro-batch size; return what measures it on pixels in memory."""
    model = resolve(settings.model, Storage())
    options = DecodeOptions.from_config(settings.decode)
    decoded = [decode(path.read_bytes(), model.preprocessing, options).pixels for path in images[:RESIDENT]]
    pixels = np.stack(decoded)
    engine = loading.load_engine(
        model,
        settings.model,
        settings.embedding,
        engine=choice.choose(settings.model, gpus=torch.cuda.is_available()),
        top_k=settings.labels.top_k,
        threads=os.cpu_count() or 1,
    )
    sizer = BatchSizer(MAX_BATCH)

    def once() -> float:
        started_s = time.perf_counter()
        batches = MicroBatches(sizer, lambda a, b: engine.start(pixels[a:b]), engine.in_flight)
        list(batches.of_block(len(pixels)))
        return len(pixels) / (time.perf_counter() - started_s)

    while sizer.settled is None:
        once()
    return once


def whole_job(settings: RunConfig) -> dict[str, float]:
    """Measure the second half of a run, and all of it."""
    seen: list[tuple[float, int]] = []

    def note(progress: Progress) -> None:
        if new := progress.predicted - sum(images for _, images in seen):
            seen.append((progress.elapsed_s, new))

    summary = run(without_output(settings), on_progress=note)
    return {
        "job: LakeLens": steady_rate.of(seen),
        "job: LakeLens, start-up included": summary.images_per_s,
    }


class PixelSink:
    """Takes the place of the predictor: it drops the pixels."""

    def __init__(self, run_id: str) -> None:
        pass

    def __call__(self, rows: pa.Table) -> pa.Table:
        return rows.select(["image_id"])


def feed(settings: RunConfig) -> float:
    """Measure the stages before the predictor."""
    run_id = uuid4().hex
    assignment = claim.plan_and_claim(without_output(settings), run_id)
    assert isinstance(assignment, claim.Assignment)
    with assignment.heartbeat, connection.connected(None), RunWork(run_id) as work:
        sizes = pools.plan_pools(settings.workers, node_resources.live(), None)
        setup = Setup(settings, assignment, sizes, "", BLOCK_ROWS)
        fed = pools.map_actors(
            stages.images(stages.rows(setup), setup), PixelSink, sizes.predictors, run_id=run_id
        )
        return steady_rate.of([(time.perf_counter(), rows) for _, rows in work.blocks(fed)])
