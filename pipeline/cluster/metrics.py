"""The metrics of a run, which Prometheus collects from every node. Each has the tag `run_id`.

This module does not know images or tables. docs/cluster.md lists names and meanings.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ray.util.metrics import Counter, Gauge, Histogram

BLOCK_S = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]
"""Bounds of the histogram of seconds for a block."""


def _counter(tags: dict[str, str], name: str, description: str, *others: str) -> Counter:
    counter = Counter(f"lakelens_{name}", description, (*tags, *others))
    counter.set_default_tags(tags)
    return counter


def _gauge(tags: dict[str, str], name: str, description: str) -> Gauge:
    gauge = Gauge(f"lakelens_{name}", description, tuple(tags))
    gauge.set_default_tags(tags)
    return gauge


class StageMetrics:
    """The metrics of one actor: the seconds for a block, and its utilisation.

    `worked_s` are the seconds for the last block, `waited_s` the seconds that the actor waited for it.
    """

    def __init__(self, run_id: str, stage: str) -> None:
        tags = {"run_id": run_id, "stage": stage}
        self._seconds = Histogram("lakelens_block_seconds", "Seconds for a block", BLOCK_S, tuple(tags))
        self._seconds.set_default_tags(tags)
        self._busy = _gauge(tags, "busy_fraction", "Share of its time in which an actor works")
        self._ended_s: float | None = None
        self.worked_s = self.waited_s = 0.0

    @contextmanager
    def block(self) -> Iterator[None]:
        """Measure the work on one block. The time between two blocks counts as waiting."""
        begun_s = time.monotonic()
        self.waited_s = begun_s - (self._ended_s or begun_s)
        yield
        self._ended_s = time.monotonic()
        self.worked_s = self._ended_s - begun_s
        self.measured(self.worked_s, self.waited_s)

    def measured(self, worked_s: float, waited_s: float) -> None:
        """Note the seconds that an actor has worked on a block and waited for it."""
        self._seconds.observe(worked_s)
        self._busy.set(worked_s / (worked_s + waited_s or 1.0))


class DecoderMetrics(StageMetrics):
    """Also counts fetched bytes."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id, "decode")
        self._bytes = _counter({"run_id": run_id}, "fetched_bytes", "Bytes of images that were fetched")

    def fetched(self, size: int) -> None:
        """Count fetched bytes."""
        if size:  # Ray's counters refuse zero
            self._bytes.inc(size)


class PredictorMetrics(StageMetrics):
    """Also counts rows by outcome and micro-batches that did not fit, and shows the size of micro-batches."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id, "predict")
        self._rows = _counter({"run_id": run_id}, "rows", "Rows that were processed", "outcome")
        self._size = _gauge({"run_id": run_id}, "micro_batch_size", "Images in a predictor's micro-batch")
        self._too_large = _counter(
            {"run_id": run_id}, "out_of_memory", "Micro-batches that the device could not hold"
        )
        self._known = 0

    def scored(self, rows: Mapping[str, int], micro_batch: int, too_large: int) -> None:
        """Count the rows of a block by outcome.

        `micro_batch` is the size of the next micro-batch, `too_large` the number that did not fit so far.
        """
        for outcome, count in rows.items():
            if count:
                self._rows.inc(count, {"outcome": outcome})
        self._size.set(micro_batch)
        if too_large > self._known:
            self._too_large.inc(too_large - self._known)
            self._known = too_large


class DriverMetrics:
    """The metrics of the driver: commits, and rows that wait for one."""

    def __init__(self, run_id: str) -> None:
        self._commits = _counter({"run_id": run_id}, "commits", "Commits of the table")
        self._committed = _counter({"run_id": run_id}, "committed_rows", "Rows that commits made visible")
        self._waiting = _gauge({"run_id": run_id}, "uncommitted_rows", "Predicted rows that are not committed yet")

    def committed(self, rows: int) -> None:
        """Count one commit and its rows."""
        self._commits.inc()
        if rows:
            self._committed.inc(rows)

    def waiting(self, rows: int) -> None:
        """Show the number of predicted rows that are not committed."""
        self._waiting.set(rows)
