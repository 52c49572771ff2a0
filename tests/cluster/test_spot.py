"""A run on four nodes with an accelerator each. One node after another is taken away and replaced."""

import importlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.run import run
from tests.chaos import cluster as chaos_cluster
from tests.support import lakes, staging, tracing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.skipif("LAKELENS_EVERY_STEP" not in os.environ, reason="two minutes: a part of make soak"),
]
ROWS = 30_000
KILL_S = 20.0
COMMIT_S = 5.0
WARM, IMPORT_S = 3, 10.0
NODE = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": chaos_cluster.STORE_BYTES}


def replace_a_node(cluster: Cluster) -> tuple[float, str]:
    """Kill a worker node and its processes, and add another one. Return the time of its death, and its id."""
    node = next(iter(cluster.worker_nodes))
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    orphans = raylet.children(recursive=True)
    raylet.kill()
    died = time.time(), node.node_id
    for process in orphans:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(**NODE)
    return died


def warmed(cluster: Cluster) -> None:
    """Join the cluster, and start idle processes on its nodes: on two cores, each takes seconds to start."""
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in ray.nodes()]
    ray.get([imported.options(scheduling_strategy=place).remote() for place in places for _ in range(WARM)])


@ray.remote(num_cpus=0)
def imported() -> None:
    importlib.import_module("tests.support.tracing")
    time.sleep(IMPORT_S)  # so that each is a process of its own


@pytest.fixture
def four_nodes() -> Iterator[Cluster]:
    with patch.dict(os.environ, chaos_cluster.ENVIRONMENT):
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        try:
            for _ in range(3):
                cluster.add_node(**NODE)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def test_all_accelerators_are_busy_soon_and_a_lost_node_costs_one_block(
    four_nodes: Cluster, tmp_path: Path
) -> None:
    overrides = (f"output.commit_interval_s={COMMIT_S}", "labels.top_k=1")
    settings, image_ids = lakes.many_rows(tmp_path, ROWS, *overrides)
    warmed(four_nodes)
    kills = []
    with ThreadPoolExecutor() as pool:  # nodes are started by the main thread alone
        job = pool.submit(run, settings, stages=staging.TRACED)
        while not job.done() and not list(tmp_path.glob("out.trace/predictor-*")):
            time.sleep(0.1)
        while not wait([job], KILL_S).done:
            kills.append(replace_a_node(four_nodes))
        summary = job.result()
    assert len(kills) >= 3
    assert summary.account.total.ok == ROWS
    assert [row["image_id"] for row in lakes.predictions(tmp_path / "out", "image_id")] == image_ids
    predicted, decoded = tracing.read(tmp_path / "out", "predictor"), tracing.read(tmp_path / "out", "decoder")
    begun = [line for line in predicted if line["what"] == "begun"]
    firsts = {line["node"]: line["at"] for line in reversed(begun)}
    first_four = sorted(firsts.values())[:4]
    print("busy after", [round(at - decoded[0]["at"], 2) for at in first_four])
    assert first_four[-1] - decoded[0]["at"] < 10
    check_what_was_lost(predicted, {node: at for at, node in kills})


def check_what_was_lost(predicted: list[dict[str, Any]], died: dict[str, float]) -> None:
    """A dead node loses the one block that it had begun, and what it had ended but no commit had reached."""
    ended = {(line["worker"], line["ids"][0]) for line in predicted if line["what"] == "ended"}
    begun = [line for line in predicted if line["what"] == "begun"]
    open_blocks = Counter(line["node"] for line in begun if (line["worker"], line["ids"][0]) not in ended)
    print("blocks lost in work by node", dict(open_blocks))
    assert all(count <= 1 for count in open_blocks.values())
    assert set(open_blocks) <= set(died)
    last: dict[str, float] = {}
    again = 0
    for line in [line for line in predicted if line["what"] == "ended"]:
        for image_id in line["ids"]:
            if image_id in last:
                again += 1
                kills = [at for at in died.values() if at > last[image_id]]
                # A block, the interval, a block's write: what the commit rule allows.
                assert min(at - last[image_id] for at in kills) < COMMIT_S + 5
            last[image_id] = line["at"]
    print("predicted again after they had ended", again, "rows in", len(died), "kills")
