"""A Ray cluster that is kept for many rounds, and whose processes can be killed one by one.

Only processes below its own raylets are touched. It does not know what they work on.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import psutil
from ray.cluster_utils import Cluster

HEAD_CPUS, NODE_CPUS = 3, 2
"""Enough for two runs with one decoder each, wherever their actors are placed."""
STORE_BYTES = 100_000_000
LIST_S = 0.3
"""How long a list of worker processes is good for."""

TITLES = {
    "decoder": ("ray::MapWorker(MapBatches(Decoder))",),
    "predictor": ("ray::MapWorker(MapBatches(Predictor))",),
    "writer": ("ray::write_fragments", "ray::write_remaining_rows"),
}
"""What Ray calls the processes of each kind."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_num_workers_soft_limit": "16",  # idle workers are kept for the next task
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",  # a dead node is missed after three seconds, not fifteen
    "RAY_health_check_timeout_ms": "10000",
    "RAY_health_check_failure_threshold": "3",
}


class MortalCluster:
    """A head node, which drivers join, and, where it is asked for, a worker node, which may be lost."""

    def __init__(self) -> None:
        node = {"num_cpus": NODE_CPUS, "object_store_memory": STORE_BYTES}
        self._node = node
        head = {**node, "num_cpus": HEAD_CPUS, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._workers: list[psutil.Process] = []
        self._listed = 0.0

    @property
    def address(self) -> str:
        """For `--address`."""
        return str(self._cluster.address)

    def have_worker_node(self, wanted: bool) -> None:
        """With a worker node, or without: every node costs processes."""
        if wanted and not self._cluster.worker_nodes:
            self._cluster.add_node(**self._node)
        elif not wanted and self._cluster.worker_nodes:
            self._cluster.remove_node(*self._cluster.worker_nodes, allow_graceful=False)
            self._cluster.wait_for_nodes()  # Ray takes seconds to miss it, and a run counts what it has

    def find(self, kind: str) -> list[psutil.Process]:
        """The worker processes of one kind, or the children in which decoders decode."""
        if kind == "child":
            decoders = self.find("decoder")
            return [
                child for decoder in decoders for child in _below(decoder) if "decode_child" in _command(child)
            ]
        return [worker for worker in self._listing() if _command(worker).startswith(TITLES[kind])]

    def lose_node(self, *, replaced: bool) -> bool:
        """SIGKILL the worker node's raylet; another node may take its place. False if there was none."""
        if not self._cluster.worker_nodes:
            return False
        (node,) = self._cluster.worker_nodes
        orphans = _below(_raylet(node))
        _raylet(node).kill()
        if replaced:
            self._cluster.add_node(**self._node)
        self._cluster.remove_node(node, allow_graceful=False)
        for orphan in orphans:  # they leave by themselves, but not at once
            with suppress(psutil.Error):
                orphan.kill()
        self._listed = 0.0
        return True

    def close(self) -> None:
        """End every node."""
        self._cluster.shutdown()

    def _listing(self) -> list[psutil.Process]:
        if time.monotonic() > self._listed + LIST_S:
            nodes = [self._cluster.head_node, *self._cluster.worker_nodes]
            self._workers = [worker for node in nodes for worker in _below(_raylet(node))]
            self._listed = time.monotonic()
        return self._workers


def _raylet(node: object) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)  # type: ignore[attr-defined]


def _below(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return process.children(recursive=True)
    return []


def _command(process: psutil.Process) -> str:
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


@contextmanager
def mortal() -> Iterator[MortalCluster]:
    """A cluster whose nodes have `ENVIRONMENT` and what this process has."""
    with patch.dict(os.environ, ENVIRONMENT):
        cluster = MortalCluster()
        try:
            yield cluster
        finally:
            cluster.close()
