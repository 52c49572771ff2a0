"""Calls that do not depend on each other: where they run. Importing this module does not import Ray."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Work(Protocol):
    """A place for calls that do not depend on each other."""

    @property
    def machines(self) -> int:
        """The number of machines that work."""

    def map(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Call a function with each of these arguments, and yield the results in order.

        Few arguments are held at once. Raises: what the function raises.
        """


class Here:
    """This process."""

    machines = 1

    def map(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Call a function with each of these arguments, and yield the results in order."""
        for arguments in calls:
            yield function(*arguments)


def is_connected() -> bool:
    """Tell whether this process is connected to a Ray cluster."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def is_at_hand() -> bool:
    """Tell whether there is a cluster without an address: by RAY_ADDRESS, or by this process's connection."""
    return "RAY_ADDRESS" in os.environ or is_connected()


def on_cluster(address: str | None, name: str) -> AbstractContextManager[Work]:
    """Join a cluster for calls, and end all of them at the end; `name` tells them from other work there.

    Raises: ClusterError.
    """
    from pipeline.cluster.task_calls import tasks  # Ray: seconds that calls in this process need not take

    return tasks(address, name)
