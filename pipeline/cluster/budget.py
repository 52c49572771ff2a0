"""Decides when a run has too many failures to continue. It does not know how rows are counted or committed."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config import FailuresConfig
from pipeline.errors import FailureRateError
from pipeline.output.fragment import WriteResult
from pipeline.planning.account import Account

REFUSED_ROWS = 10
"""A run stops after this many images if its store refuses every one, even if `failures.min_rows` is larger."""


@dataclass(frozen=True)
class FailureBudget:
    """How many rows may fail.

    A run that tries failed rows `again` may exceed the rate, since those rows may fail again. But it also stops if
    the store refuses every row: a store that is down says nothing about the rows.
    """

    limits: FailuresConfig
    again: bool = False

    def holds(self, after: Account, results: Sequence[WriteResult], *, last: bool) -> bool:
        """Decide whether to hold a commit of these results back, because too many rows have failed.

        `after` is the account once they are committed; `last` means that no further rows come.
        Raises: FailureRateError if enough rows were processed to stop the run.
        """
        done = after.total.ok + after.total.failed
        refused = sum(result.refused for result in results) == done
        if after.failure_rate() <= self.limits.max_rate or (self.again and not refused):
            return False
        if done >= self.limits.min_rows or (last and refused and done >= REFUSED_ROWS):
            examples = [example for result in results for example in result.examples]
            raise FailureRateError(
                f"{after.total.failed} of the first {done} images failed, which is more than failures.max_rate = "
                f"{self.limits.max_rate:g}. The last of them were not committed. Examples: "
                f"{', '.join(examples[:3])}."
            )
        return True
