"""The account of a running run. It is reported to the progress line, to the metrics and to the next run.

The thread `gather` counts finished blocks; the thread `commit` counts what it has committed. The failure budget
decides whether too many rows fail.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing

from pipeline.cluster.budget import FailureBudget
from pipeline.cluster.metrics import DriverMetrics
from pipeline.cluster.ray_internals import Blocks
from pipeline.output.fragment import WriteResult
from pipeline.output.handover import HandoverFile
from pipeline.planning.account import Account, Progress
from pipeline.schema import FAILED, OK
from pipeline.stage_seconds import Seconds

RATE_S = 5.0
"""Seconds that predictors must have worked before their rate is kept for the next run."""


class Ledger:
    """Rows predicted and committed so far. `account` and `seconds` cover the committed ones."""

    def __init__(
        self,
        account: Account,
        pending: int,
        budget: FailureBudget,
        *,
        metrics: DriverMetrics | None = None,
        handover: HandoverFile | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self.account, self.seconds, self.engine = account, Seconds(), ""
        self._changed_s = self._began_s = time.monotonic()
        self._pending, self._predicted, self._budget = pending, 0, budget
        self._metrics, self._handover, self._on_progress = metrics, handover, on_progress
        self._reporting = threading.Lock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began_s

    def changed(self) -> float:
        """Return when a row was last predicted or committed, on the clock of `time.monotonic`."""
        return self._changed_s

    def counted(self, blocks: Blocks) -> Blocks:
        """Pass blocks on, and count their rows as predicted."""
        with closing(blocks):
            for block in blocks:
                self._predicted += block[1]
                self._report()
                yield block

    def holds(self, results: Sequence[WriteResult], *, last: bool) -> bool:
        """Decide whether to hold back a commit of these results. Raises: FailureRateError."""
        return self._budget.holds(self._after(results), results, last=last)

    def committed(self, results: Sequence[WriteResult]) -> None:
        """Count the rows of one commit."""
        self.account = self._after(results)
        self.seconds = sum((result.seconds for result in results), self.seconds)
        if self._metrics:
            self._metrics.committed(sum(result.fragment.rows for result in results))
        if self._handover and self.seconds.predict > RATE_S:
            done = self.account.total.ok + self.account.total.failed
            self._handover.note_rate(self.engine, done / self.seconds.predict)
        self._report()

    def _after(self, results: Sequence[WriteResult]) -> Account:
        fragments = [result.fragment for result in results]
        return self.account.after(
            (f.dataset, f.rows if f.outcome == OK else 0, f.rows if f.outcome == FAILED else 0) for f in fragments
        )

    def _report(self) -> None:
        with self._reporting:
            self._changed_s, total = time.monotonic(), self.account.total
            if self._metrics:
                self._metrics.waiting(self._predicted - total.ok - total.failed)
            self._on_progress(Progress(self._pending, self._predicted, self.account, self.elapsed_s))
