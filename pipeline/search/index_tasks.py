"""Parts of a build as tasks on a Ray cluster, spread over its nodes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray

from pipeline.cluster import connection, node_resources
from pipeline.cluster.run_work import RunWork


class Cluster:
    """The nodes of the cluster that this process is connected to. `work` ends their tasks."""

    def __init__(self, work: RunWork) -> None:
        self._work = work
        self.machines = max(1, node_resources.live().cpu_nodes)

    def map(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a function with each of these arguments, in tasks. Raises: what it raises, ClusterError."""
        task = ray.remote(function).options(
            num_cpus=1, scheduling_strategy="SPREAD", max_retries=3, retry_exceptions=False
        )
        with connection.translated_errors():
            found: list[Any] = ray.get([self._work.task(task.remote(*arguments)) for arguments in calls])
        return found


@contextmanager
def on_cluster(address: str | None) -> Iterator[Cluster]:
    """Join a cluster, and end all tasks at the end. Raises: ClusterError."""
    with connection.connected(address), RunWork("index") as work:
        yield Cluster(work)
