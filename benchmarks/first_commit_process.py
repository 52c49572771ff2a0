"""The process that `benchmarks.first_commit` times. It imports nothing else, and prints the time when it is done.

Without arguments it is the smallest Ray Data job with an actor; otherwise a whole run, timed to its first commit.
"""

import sys
import time

import ray

from pipeline import config
from pipeline.planning.account import Progress
from pipeline.run import run


class Identity:
    """An actor that returns its input."""

    def __call__(self, batch: dict[str, object]) -> dict[str, object]:
        return batch


def empty_job() -> None:
    """Send a hundred numbers through an actor."""
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.range(100).map_batches(Identity, compute=ray.data.ActorPoolStrategy(size=1)).materialize()
    print(time.time())


def first_commit(output: str, manifest: str, model: str) -> None:
    """Run, and print the time of the first commit in epoch seconds."""
    times: list[float] = []

    def note(progress: Progress) -> None:
        if progress.predicted and progress.account.total.ok and not times:
            times.append(time.time())

    raw = {"manifest": {"path": manifest}, "model": {"name": model}, "output": {"path": output}}
    run(config.parse(raw), on_progress=note)
    print(times[0])


if __name__ == "__main__":
    first_commit(*sys.argv[1:]) if sys.argv[1:] else empty_job()
