"""Where vectors are compared: one call after the other in this process, or as tasks on a Ray cluster."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.cluster import calls
from pipeline.cluster.calls import Here, Work

WORTH_ROWS = 2_000_000
"""Fewest rows that tasks compare if a cluster is at hand. One process takes minutes for this many."""


@contextmanager
def place(address: str | None, rows: int) -> Iterator[Work]:
    """Choose where this many rows are compared.

    Tasks compare them if an address is given; many rows also if RAY_ADDRESS names a cluster, or if this process
    is connected to one. Raises: ClusterError.
    """
    if address is None and not (calls.is_at_hand() and rows >= WORTH_ROWS):
        yield Here()
        return
    with calls.on_cluster(address, "duplicates") as cluster:
        yield cluster
