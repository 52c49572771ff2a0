"""An actor with an accelerator works on two blocks at once, and both are done again if it dies."""

import os
import threading
from pathlib import Path

import pyarrow as pa
import pytest
import ray
from ray.data import Dataset

from pipeline.cluster import pools, ray_internals
from pipeline.cluster.pools import Pool
from pipeline.config import PoolConfig

pytestmark = pytest.mark.usefixtures("local_cluster")

BLOCKS = 6
SOON_S = 60.0
ONE = Pool(PoolConfig(min_size=1, max_size=1), accelerator="GPU")


class Meeting:
    """Two calls wait for each other. With a `folder`, the first process ends in the middle of its third block."""

    def __init__(self, run_id: str, folder: Path | None = None) -> None:
        self._both, self._folder, self._calls = threading.Barrier(2, timeout=SOON_S), folder, 0

    def __call__(self, rows: pa.Table) -> pa.Table:
        self._both.wait()
        self._calls += 1
        if self._folder is not None and self._calls == 3 and not (self._folder / "died").exists():
            (self._folder / "died").touch()
            os._exit(1)
        return rows.append_column("process", pa.repeat(os.getpid(), rows.num_rows))


def seen(dataset: Dataset) -> list[tuple[int, int]]:
    """The first id of each block, and the process that it went through."""
    blocks = [ray.get(ref) for ref, _ in ray_internals.output_blocks(dataset)]
    return sorted((block["id"][0].as_py(), block["process"][0].as_py()) for block in blocks)


def numbers() -> Dataset:
    return ray.data.from_items([{"id": number} for number in range(BLOCKS)], override_num_blocks=BLOCKS)


def test_two_calls_of_one_actor_run_at_once_and_no_block_is_cut_or_lost() -> None:
    found = seen(pools.map_actors(numbers(), Meeting, ONE, run_id="two"))
    assert [number for number, _ in found] == list(range(BLOCKS))
    assert len({process for _, process in found}) == 1


def test_the_blocks_of_an_actor_that_dies_are_done_again_by_another_one(tmp_path: Path) -> None:
    found = seen(pools.map_actors(numbers(), Meeting, ONE, run_id="two", folder=tmp_path))
    assert [number for number, _ in found] == list(range(BLOCKS))
    assert len({process for _, process in found}) == 2


def test_a_predictor_on_cpus_works_on_one_block() -> None:
    assert (ONE.calls, Pool(PoolConfig(min_size=1, max_size=1)).calls) == (2, 1)
