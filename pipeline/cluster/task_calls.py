"""Calls as tasks on a Ray cluster, spread over its nodes. This process sends each task its arguments."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import ray
from ray import ObjectRef

from pipeline.cluster import connection, node_resources
from pipeline.cluster.run_work import RunWork

AHEAD = 2
"""Tasks for each CPU that have been sent and not answered."""


class Cluster:
    """The nodes of the cluster that this process is connected to. `work` ends their tasks."""

    def __init__(self, work: RunWork) -> None:
        self._work = work
        self.machines = max(1, node_resources.live().cpu_nodes)

    def map(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Call a function with each of these arguments, in tasks, and yield the results in order.

        Raises: what the function raises, ClusterError.
        """
        task = ray.remote(function).options(num_cpus=1, scheduling_strategy="SPREAD", max_retries=3)
        most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        sent = deque[ObjectRef]()
        with connection.translated_errors():
            for arguments in calls:
                sent.append(self._work.task(task.remote(*arguments)))
                if len(sent) >= most:
                    yield ray.get(sent.popleft())
            while sent:
                yield ray.get(sent.popleft())


@contextmanager
def tasks(address: str | None, name: str) -> Iterator[Cluster]:
    """Join a cluster, and end all tasks at the end. Raises: ClusterError."""
    with connection.connected(address), RunWork(f"{name}-{uuid4().hex}") as work:
        yield Cluster(work)
