"""The failure budget, and the ledger that asks it."""

import pytest

from pipeline.cluster.budget import REFUSED_ROWS, FailureBudget
from pipeline.cluster.ledger import Ledger
from pipeline.config import FailuresConfig
from pipeline.errors import FailureRateError
from pipeline.output.fragment import Fragment, WriteResult
from pipeline.planning.account import Account, Counts, Progress

LIMITS = FailuresConfig(max_rate=0.5, min_rows=100)


def after(ok: int, failed: int) -> Account:
    return Account({"d": Counts(input=ok + failed, ok=ok, failed=failed)})


def failing(rows: int, refused: int = 0) -> WriteResult:
    fragment = Fragment("f", "d", "failed", rows, 1)
    return WriteResult(fragment, ("/a.jpg: corrupt", "/b.jpg: corrupt"), refused)


@pytest.mark.parametrize(("ok", "failed", "held"), [(5, 5, False), (5, 6, True), (49, 50, True), (60, 60, False)])
def test_a_commit_is_held_while_more_rows_fail_than_may_and_there_are_too_few_to_judge(
    ok: int, failed: int, held: bool
) -> None:
    assert FailureBudget(LIMITS).holds(after(ok, failed), [failing(failed)], last=False) is held


def test_with_enough_rows_the_run_ends_and_names_the_rate_the_limit_and_examples() -> None:
    with pytest.raises(FailureRateError, match=r"60 of the first 100 .* 0\.5.*/a\.jpg: corrupt, /b\.jpg: corrupt"):
        FailureBudget(LIMITS).holds(after(40, 60), [failing(60)], last=False)


def test_the_last_commit_of_a_small_run_ends_it_only_if_the_store_refused_every_row() -> None:
    few, enough = REFUSED_ROWS - 1, REFUSED_ROWS
    budget = FailureBudget(LIMITS)
    assert budget.holds(after(0, few), [failing(few, refused=few)], last=True)
    assert budget.holds(after(0, enough), [failing(enough, refused=enough - 1)], last=True)
    with pytest.raises(FailureRateError):
        budget.holds(after(0, enough), [failing(enough, refused=enough)], last=True)


def test_rows_that_are_tried_again_may_fail_again_unless_the_store_refuses_them_all() -> None:
    again = FailureBudget(LIMITS, again=True)
    assert not again.holds(after(0, 200), [failing(200, refused=199)], last=True)
    with pytest.raises(FailureRateError):
        again.holds(after(0, 200), [failing(200, refused=200)], last=True)


def test_the_ledger_counts_what_is_committed_and_tells_it() -> None:
    told: list[Progress] = []
    ledger = Ledger(Account({"d": Counts(input=10, left=10)}), 10, FailureBudget(LIMITS), on_progress=told.append)
    before = ledger.changed()
    ledger.committed([WriteResult(Fragment("a", "d", "ok", 6, 1)), failing(2)])
    total = ledger.account.total
    assert (total.ok, total.failed, total.left) == (6, 2, 2)
    assert ledger.changed() >= before
    assert [progress.account.total.ok for progress in told] == [6]
