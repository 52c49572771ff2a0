"""Where the parts of a build run: one after the other in this process, or as tasks on a Ray cluster.

Lance uses all cores of a machine by itself, so that Ray helps only if there are several machines.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.cluster import calls
from pipeline.cluster.calls import Here, Work


@contextmanager
def place(address: str | None, *, large: bool) -> Iterator[Work]:
    """Choose where a build runs: on the cluster at `address` or $RAY_ADDRESS if it is large, otherwise here.

    Raises: ClusterError.
    """
    if not large or not (address or os.environ.get("RAY_ADDRESS") or calls.is_connected()):
        yield Here()
        return
    with calls.on_cluster(address, "index") as cluster:
        yield cluster
