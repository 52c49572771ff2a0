"""A watch for actors that Ray cannot place, so that no run waits for them for ever."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pipeline.cluster import node_resources
from pipeline.cluster.pools import Pools
from pipeline.errors import ClusterError, TableError

POLL_S = 5.0
"""Seconds between two looks at the progress of the run."""


@contextmanager
def watched(
    pools: Pools, wait_s: float, changed: Callable[[], float], give_up: Callable[[], None]
) -> Iterator[None]:
    """Watch a run for actors that Ray cannot place.

    `changed` returns when the run last made progress, on the clock of `time.monotonic`. If that is `wait_s`
    seconds ago and actors of the pools are unplaced, the thread `watch` calls `give_up`, and the context ends with
    ClusterError. Ray itself would wait for ever, also for the rows that such an actor was given.
    """
    began_s, ended = time.monotonic(), threading.Event()
    problems: list[str] = []
    shapes = [pools.decoders.shape, pools.predictors.shape]

    def watch() -> None:
        while not ended.wait(min(wait_s, POLL_S)):
            if time.monotonic() > max(began_s, changed()) + wait_s and (problem := _unplaced(shapes)):
                problems.append(problem)
                return give_up()

    thread = threading.Thread(target=watch, daemon=True, name="watch")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        # A commit that is in doubt matters more: the run must not clear up what may land yet.
        if problems and not isinstance(sys.exception(), TableError):
            raise ClusterError(
                f"The run made no progress for {wait_s:g} s, and {problems[0]}. Committed rows are kept. Add "
                "what is missing or lower the pool sizes, and run again."
            )


def _unplaced(shapes: list[dict[str, float]]) -> str | None:
    """Call `node_resources.unplaced`. A cluster that does not answer now is asked again later."""
    with suppress(Exception):
        return node_resources.unplaced(shapes)
    return None
