"""Committing, without Ray: writes are futures."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import cast

import pytest
from ray import ObjectRef

from pipeline.cluster import commit
from pipeline.cluster.budget import FailureBudget
from pipeline.cluster.commit import MOVES, WRITES_IN_FLIGHT, Committer, Newer, Replacements
from pipeline.cluster.ledger import Ledger
from pipeline.config import FailuresConfig
from pipeline.errors import MovedError, OvertakenError, StorageError
from pipeline.output.fragment import Fragment, RemainingRows, WriteResult
from pipeline.output.table import Predictions
from pipeline.planning.account import Account, Counts


class Write:
    """Stands for the reference of a running task: all that Committer takes of it is its future."""

    def __init__(self) -> None:
        self.result: Future[list[WriteResult]] = Future()

    def future(self) -> "Future[list[WriteResult]]":
        return self.result

    def finish(self, rows: int) -> None:
        self.result.set_result([WriteResult(Fragment(f"{id(self)}", "d", "ok", rows, 1))])


class Table:
    """Records commits, as the real table would take them."""

    def __init__(self, error: Exception | None = None) -> None:
        self.commits: list[list[int]] = []
        self.error = error

    def commit(
        self, fragments: list[Fragment], run_id: str, epoch: int, replaced: Mapping[str, Fragment | None]
    ) -> None:
        if self.error is not None:
            raise self.error
        self.commits.append([fragment.rows for fragment in fragments])

    def holders(self, path: str) -> list[str]:
        return [path]


def committer(table: Table, interval_s: float = 0.05) -> Committer:
    replacements = Replacements(table.holders, lambda newer: {})
    return Committer(cast(Predictions, table), "run", 1, interval_s, ledger(max_rate=1.0), replacements)


def ledger(max_rate: float) -> Ledger:
    """With 1,000 pending rows of one dataset."""
    account = Account({"d": Counts(input=1000, left=1000)})
    return Ledger(account, 1000, FailureBudget(FailuresConfig(max_rate=max_rate, min_rows=1000)))


def add(target: Committer, write: Write) -> None:
    target.add(cast(ObjectRef, write))


def test_every_write_is_committed_once_and_close_waits_for_the_last() -> None:
    table = Table()
    target = committer(table)
    for number in range(20):
        write = Write()
        add(target, write)
        threading.Timer(0.01 * (number % 3), write.finish, [number]).start()
    target.close()
    assert sorted(rows for commit in table.commits for rows in commit) == list(range(20))


def test_writes_that_finish_soon_after_a_commit_share_the_next_one() -> None:
    table = Table()
    target = committer(table, interval_s=1000)
    for number in range(10):
        write = Write()
        write.finish(number)
        add(target, write)
        if number == 0:
            wait_for(lambda: table.commits)
    target.close()
    assert [len(commit) for commit in table.commits] == [1, 9]  # the first at once, and the rest at the end


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_add_waits_while_enough_writes_are_in_flight() -> None:
    target = committer(Table())
    writes = [Write() for _ in range(WRITES_IN_FLIGHT + 1)]
    for write in writes[:-1]:
        add(target, write)
    waiting = threading.Thread(target=add, args=(target, writes[-1]))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    for write in writes:
        write.finish(1)
    waiting.join(5)
    assert not waiting.is_alive()
    target.close()


@pytest.mark.parametrize("in_flight", [0, 1, WRITES_IN_FLIGHT])
def test_a_commit_that_fails_is_raised_where_the_driver_is(in_flight: int) -> None:
    target = committer(Table(OvertakenError("a newer run")))
    failing = Write()
    add(target, failing)
    waiting = [Write() for _ in range(in_flight)]
    failing.finish(1)

    def drive() -> None:
        for write in waiting:
            add(target, write)
            write.finish(1)
        target.close()

    with pytest.raises(OvertakenError, match="a newer run"):
        drive()


def test_a_write_that_fails_is_raised_where_the_driver_is() -> None:
    target = committer(Table())
    write = Write()
    add(target, write)
    write.result.set_exception(OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        target.close()


def test_what_was_written_beside_a_failed_write_is_committed() -> None:
    table = Table()
    target = committer(table, interval_s=1000)
    writes = [Write() for _ in range(4)]
    for write in writes:
        add(target, write)
    for number in (0, 1, 3):
        writes[number].finish(number)
    writes[2].result.set_exception(OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        target.close()
    assert sorted(rows for commit in table.commits for rows in commit) == [0, 1, 3]


def test_a_write_that_cannot_be_waited_for_leaves_close_its_slot() -> None:
    target = committer(Table())
    with pytest.raises(AttributeError):
        target.add(cast(ObjectRef, object()))
    target.close()


def test_a_close_that_is_stopped_waits_only_so_long_for_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "STOP_S", 0.5)
    table, stop = Table(), threading.Event()
    target = committer(table)
    written = Write()
    written.finish(3)
    for write in (written, Write()):
        add(target, write)
    threading.Timer(0.5, stop.set).start()
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"did not take the last rows within 0\.5 s of the stop"):
        target.close(stop.is_set)
    assert 0.9 < time.monotonic() - started < 10
    assert (table.commits, target.ended) == ([[3]], True)


def test_a_commit_that_fails_is_known_before_anything_is_asked() -> None:
    target = committer(Table(OvertakenError("a newer run")))
    write = Write()
    add(target, write)
    assert not target.failed()
    write.finish(1)
    wait_for(target.failed)
    assert target.failed()


def test_a_held_commit_waits_for_the_end() -> None:
    table = Table()
    replacements = Replacements(table.holders, lambda newer: {})
    target = Committer(cast(Predictions, table), "run", 1, 0.01, ledger(max_rate=0.0), replacements)
    write = Write()
    write.result.set_result([WriteResult(Fragment("f", "d", "failed", 5, 1))])
    add(target, write)
    time.sleep(0.2)
    assert table.commits == []
    target.close()
    assert table.commits == [[5]]


def replacing(new: str, *paths: str) -> WriteResult:
    return WriteResult(Fragment(new, "d", "ok", 1, 1), replaces=paths)


def test_the_files_that_hold_replaced_rows_now_are_each_written_anew_once() -> None:
    asked: list[Newer] = []

    def rewrite(newer: Newer) -> dict[str, RemainingRows]:
        asked.append(newer)
        rests = {
            "a": RemainingRows(2, Fragment("a2", "d", "failed", 1, 1)),
            "b1": RemainingRows(0, None),
            "b2": RemainingRows(1, None),
        }
        return {path: rests[path] for path in newer}

    replacements = Replacements(lambda path: {"a": ["a"], "b": ["b1", "b2"]}[path], rewrite)
    assert replacements.of([replacing("x")]) == {}
    assert asked == []
    found = replacements.of([replacing("n1", "a"), replacing("n2", "a", "b"), replacing("n3", "b")])
    assert {path: other and other.path for path, other in found.items()} == {"a": "a2", "b2": None}
    assert asked == [{"a": ["n1", "n2"], "b1": ["n2", "n3"], "b2": ["n2", "n3"]}]


class MovingTable(Table):
    """A table whose files maintenance moves before so many commits."""

    def __init__(self, moves: int) -> None:
        super().__init__()
        self.moves, self.caught_up = moves, 0

    def commit(
        self, fragments: list[Fragment], run_id: str, epoch: int, replaced: Mapping[str, Fragment | None]
    ) -> None:
        if self.caught_up < self.moves:
            raise MovedError("moved")
        super().commit(fragments, run_id, epoch, replaced)

    def catch_up(self, epoch: int) -> None:
        self.caught_up += 1


def test_a_commit_looks_again_when_maintenance_has_moved_its_rows() -> None:
    table = MovingTable(3)
    target = committer(table)
    write = Write()
    write.finish(7)
    add(target, write)
    target.close()
    assert (table.commits, table.caught_up) == ([[7]], 3)


def test_a_commit_whose_rows_never_stay_where_they_are_gives_up() -> None:
    target = committer(MovingTable(MOVES))
    write = Write()
    write.finish(7)
    add(target, write)
    with pytest.raises(MovedError):
        target.close()
