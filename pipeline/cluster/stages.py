"""The stages that the rows of a run go through on Ray. Each function is one stage, and says which columns it adds.

A block of rows stays one block from the first stage to the last.
"""

from collections.abc import Callable
from dataclasses import dataclass

import ray
from ray.data import Dataset

from pipeline import schema
from pipeline.cluster import pools
from pipeline.cluster.pools import Pools
from pipeline.cluster.workers import Decoder, Predictor, read_pending
from pipeline.config import RunConfig
from pipeline.planning.claim import Assignment


@dataclass(frozen=True)
class Setup:
    """What the stages of one run need. `engine` is the engine's name; a block has up to `block_rows` rows."""

    config: RunConfig
    assignment: Assignment
    pools: Pools
    engine: str
    block_rows: int


def rows(setup: Setup) -> Dataset:
    """Read the pending rows.

    Their columns are image_id, uri, dataset, version, offset, length, where the manifest has the bytes, which file
    has the old row, and the kept columns.
    """
    assignment = setup.assignment
    # `from_arrow` would start one task a file, and each of them would wait for a CPU.
    named = [{schema.URI: uri} for uri in assignment.files]
    files = ray.data.from_items(named, override_num_blocks=len(named))
    reading = pools.reader_options(len(assignment.files))
    read = files.map_batches(read_pending, fn_kwargs={"storage": assignment.target.storage}, **reading)
    return pools.cut_blocks(read, setup.block_rows)


def images(rows: Dataset, setup: Setup, actor: type = Decoder) -> Dataset:
    """Fetch and decode. Adds pixels u8 (H, W, 3), width, height, content_sha256, decode_notes, stage, error_code,
    message, attempts."""
    return pools.map_actors(
        rows,
        actor,
        setup.pools.decoders,
        run_id=setup.assignment.run_id,
        config=setup.config,
        steps=setup.assignment.target.model.preprocessing,
    )


def scored(images: Dataset, setup: Setup, actor: type = Predictor) -> Dataset:
    """Predict. Adds outcome, label, score, labels, embedding, embedding_norm, run_id, finished_at; drops pixels,
    offset, length."""
    target, predictors = setup.assignment.target, setup.pools.predictors
    return pools.map_actors(
        images,
        actor,
        predictors,
        config=setup.config,
        weights_sha256=target.model.weights_sha256,
        engine=setup.engine,
        threads=setup.pools.predictor_threads,
        share=predictors.share,
        block_rows=setup.block_rows,
        output=target.output,
        run_id=setup.assignment.run_id,
    )


@dataclass(frozen=True)
class Stages:
    """The stages of a run. Tests and benchmarks replace some of them."""

    rows: Callable[[Setup], Dataset] = rows
    images: Callable[[Dataset, Setup], Dataset] = images
    scored: Callable[[Dataset, Setup], Dataset] = scored


STAGES = Stages()
