"""What `benchmarks.start` times, with nothing else imported: run as a process, it prints when it was done.

Without arguments the least that a Ray Data job with an actor can be; else a whole run, up to its first commit.
"""

import sys
import time

import ray

from pipeline import config
from pipeline.planning.account import Progress
from pipeline.run import run


class Nothing:
    """An actor that gives what it gets."""

    def __call__(self, batch: dict[str, object]) -> dict[str, object]:
        return batch


def empty() -> None:
    """A hundred numbers through an actor."""
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.range(100).map_batches(Nothing, compute=ray.data.ActorPoolStrategy(size=1)).materialize()
    print(time.time())


def first_commit(output: str, manifest: str, model: str) -> None:
    """A whole run, which tells when it has committed rows."""
    told: list[float] = []

    def note(progress: Progress) -> None:
        if progress.predicted and progress.account.total.ok and not told:
            told.append(time.time())

    raw = {"manifest": {"path": manifest}, "model": {"name": model}, "output": {"path": output}}
    run(config.parse(raw), on_progress=note)
    print(told[0])


if __name__ == "__main__":
    first_commit(*sys.argv[1:]) if sys.argv[1:] else empty()
