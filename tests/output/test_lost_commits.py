"""Commits whose answer is lost, on a real Delta log: each lands once."""

from collections.abc import Callable

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from pipeline.errors import OvertakenError, TableError
from pipeline.output import table
from pipeline.output.table import Predictions
from tests.support.making import write_fragment
from tests.support.tables import claimed, commit_ids, ids, maintain, opened


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table.time, "sleep", lambda seconds: None)


class LosingHandle:
    """A `DeltaTable` whose next answers are lost: the commit lands, or not, and then the call fails."""

    def __init__(self, handle: DeltaTable, lost: int, lands: bool, meanwhile: Callable[[], object]) -> None:
        self._handle, self._lost, self._lands, self._meanwhile = handle, lost, lands, meanwhile

    def create_write_transaction(self, **arguments: object) -> None:
        lose, self._lost = self._lost > 0, self._lost - 1
        if self._lands or not lose:
            self._handle.create_write_transaction(**arguments)
        if lose:
            self._meanwhile()
            raise DeltaError("connection reset by peer")

    def __getattr__(self, name: str) -> object:
        return getattr(self._handle, name)


def lose_answers(
    found: Predictions, *, lost: int = 1, lands: bool, meanwhile: Callable[[], object] = lambda: None
) -> None:
    handle = DeltaTable(found._handle.table_uri, version=found.version)
    found._handle = LosingHandle(handle, lost, lands, meanwhile)


def test_a_commit_whose_answer_was_lost_is_not_made_twice(out: str) -> None:
    found, epoch = claimed(out)
    fragment = write_fragment(out, "a", ["1"], epoch)
    lose_answers(found, lands=True)
    found.commit([fragment], "one", epoch)
    assert ids(out) == ["1"]
    assert opened(out).version == found.version == 2
    found.commit([write_fragment(out, "a", ["2"], epoch)], "one", epoch)
    assert ids(out) == ["1", "2"]


@pytest.mark.parametrize("lands", [True, False])
def test_a_commit_lands_once_if_maintenance_comes_while_its_answer_is_lost(out: str, lands: bool) -> None:
    found, epoch = claimed(out)
    lose_answers(found, lands=lands, meanwhile=lambda: maintain(out))
    found.commit([write_fragment(out, "a", ["1"], epoch)], "one", epoch)
    assert ids(out) == ["1"]
    assert set(commit_ids(out).values()) == {1}
    found.commit([write_fragment(out, "a", ["2"], epoch)], "one", epoch)
    assert ids(out) == ["1", "2"]


def test_a_lost_commit_that_landed_counts_even_if_the_table_was_overtaken_since(out: str) -> None:
    found, epoch = claimed(out)
    lose_answers(found, lands=True, meanwhile=lambda: opened(out).claim("two", []))
    found.commit([write_fragment(out, "a", ["1"], epoch)], "one", epoch)
    assert ids(out) == ["1"]
    with pytest.raises(OvertakenError):
        found.commit([write_fragment(out, "a", ["2"], epoch)], "one", epoch)


def test_a_commit_that_did_not_land_is_tried_again(out: str) -> None:
    found, epoch = claimed(out)
    lose_answers(found, lost=table.COMMIT_ATTEMPTS - 1, lands=False)
    found.commit([write_fragment(out, "a", ["1"], epoch)], "one", epoch)
    assert ids(out) == ["1"]


def test_a_store_that_keeps_failing_is_one_sentence(out: str) -> None:
    found, epoch = claimed(out)

    def failing(version: int | None) -> DeltaTable:
        raise OSError("gone")

    lose_answers(found, lost=table.COMMIT_ATTEMPTS, lands=False)
    found._reopened = failing  # type: ignore[method-assign]
    with pytest.raises(TableError, match=rf"Cannot commit to .*: the store failed {table.COMMIT_ATTEMPTS} times"):
        found.commit([write_fragment(out, "a", ["1"], epoch)], "one", epoch)
    assert ids(out) == []
