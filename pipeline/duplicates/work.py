"""Where vectors are compared: one call after the other in this process, or as tasks on a Ray cluster."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

WORTH_ROWS = 2_000_000
"""Rows from which on tasks compare if a cluster is at hand. One process takes minutes for this many."""


class Work(Protocol):
    """A place for calls that do not depend on each other."""

    def map(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Call a function with each of these arguments, and yield the results in order.

        Few arguments are held at once. Raises: what the function raises.
        """


class Here:
    """This process. numpy uses all its cores."""

    def map(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Call a function with each of these arguments, and yield the results in order."""
        for arguments in calls:
            yield function(*arguments)


@contextmanager
def place(address: str | None, rows: int) -> Iterator[Work]:
    """Choose where this many rows are compared.

    Tasks compare them if an address is given; many rows also if RAY_ADDRESS names a cluster, or if this process
    is connected to one. Raises: ClusterError.
    """
    ray = sys.modules.get("ray")
    at_hand = "RAY_ADDRESS" in os.environ or (ray is not None and ray.is_initialized())
    if address is None and not (at_hand and rows >= WORTH_ROWS):
        yield Here()
        return
    from pipeline.duplicates.ray_tasks import on_cluster  # Ray: seconds that a small output need not take

    with on_cluster(address) as cluster:
        yield cluster
