"""Exports whose files are written by tasks on a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from uuid import uuid4

from pipeline.cluster import calls
from pipeline.errors import StorageError
from pipeline.export.all_rows import Stretch
from pipeline.export.summary import Written

WORTH_BYTES = 2**30
"""Fewest bytes of vectors that tasks write if a cluster is at hand. One process writes this much in
some ten seconds, which is about what it takes to connect and to start workers."""


def are_used(address: str | None, vector_bytes: int) -> bool:
    """Tell whether tasks write an export with vectors of this size.

    They do if an address is given; for a large export also if RAY_ADDRESS names a cluster, or if this process is
    connected to one. Otherwise this process writes: a cluster that it would start has no other machine's disks,
    network or CPUs to offer.
    """
    return address is not None or (calls.is_at_hand() and vector_bytes >= WORTH_BYTES)


def write_all(
    stretches: Sequence[Stretch], write: Callable[[Stretch], Written], address: str | None
) -> Iterator[tuple[Stretch, Written]]:
    """Write each stretch in a task, and yield what it has written when it ends. Closing this ends all tasks.

    Raises: ClusterError, and what a task raises.
    """
    import ray  # seconds that an export without Ray need not take

    from pipeline.cluster.connection import connected, translated_errors
    from pipeline.cluster.run_work import RunWork

    with connected(address), translated_errors(), RunWork(f"export-{uuid4().hex}") as work:
        task = ray.remote(num_cpus=1, max_retries=3, retry_exceptions=[StorageError])(_write)
        same = ray.put(write)
        running = {work.task(task.remote(same, stretch)): stretch for stretch in stretches}
        while running:
            (done,), _ = ray.wait(list(running))
            yield running.pop(done), ray.get(done)


def _write(write: Callable[[Stretch], Written], stretch: Stretch) -> Written:
    return write(stretch)
