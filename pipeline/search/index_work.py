"""Where the parts of a build run: one after the other in this process, or as tasks on a Ray cluster.

Lance uses all cores of a machine by itself, so that Ray helps only if there are several machines.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol


class Work(Protocol):
    """A place for parts of a build."""

    @property
    def machines(self) -> int:
        """The number of machines that work."""

    def map(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a function with each of these arguments, and return the results. Raises: what it raises."""


class Here:
    """This process."""

    machines = 1

    def map(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a function with each of these arguments, and return the results."""
        return [function(*arguments) for arguments in calls]


@contextmanager
def place(address: str | None, *, large: bool) -> Iterator[Work]:
    """Choose where a build runs: on the cluster at `address` or $RAY_ADDRESS if it is large, otherwise here.

    Raises: ClusterError.
    """
    joined = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    if not large or not (address or os.environ.get("RAY_ADDRESS") or joined):
        yield Here()
        return
    from pipeline.search.index_tasks import on_cluster  # Ray: seconds that a small index need not take

    with on_cluster(address) as cluster:
        yield cluster
