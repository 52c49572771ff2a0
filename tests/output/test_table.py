"""Epochs and commits of the predictions table, on a real Delta log."""

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Field, Transaction

from pipeline import schema
from pipeline.errors import MovedError, OvertakenError, TableError
from pipeline.output import orphans, table
from pipeline.output.layout import PREDICTIONS
from pipeline.output.table import Predictions
from tests.support.making import STORAGE, write_fragment
from tests.support.tables import claimed, commit_ids, ids, maintain, opened

CAPTION = pa.field("caption", pa.string())


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table.time, "sleep", lambda seconds: None)


def append_nothing(out: str) -> None:
    """A commit by someone else that conflicts with none."""
    delta = DeltaTable(f"{out}/{PREDICTIONS}")
    delta.create_write_transaction([], "append", delta.schema(), list(schema.PARTITIONS))


def test_there_is_no_table_before_it_is_created(out: str) -> None:
    assert Predictions.open(out, STORAGE) is None
    assert not Path(out).exists()


def test_creating_twice_gives_the_same_table(out: str) -> None:
    first = Predictions.create(out, STORAGE, [CAPTION])
    second = Predictions.create(out, STORAGE, [CAPTION])
    assert (first.version, second.version) == (0, 0)
    assert (first.epoch, first.files()) == (0, [])
    assert schema.kept(second.columns()) == [CAPTION]
    assert len(list(Path(out, PREDICTIONS, "_delta_log").glob("*.json"))) == 1


def test_a_claim_moves_the_epoch_by_one(out: str) -> None:
    found, epoch = claimed(out)
    assert (epoch, found.epoch, opened(out).epoch) == (1, 1, 1)
    assert opened(out).claim("two", []) == 2
    assert opened(out).epoch == 2


def test_a_stale_table_cannot_be_claimed(out: str) -> None:
    _, epoch = claimed(out)
    stale = opened(out)
    assert opened(out).claim("two", []) == epoch + 1
    assert stale.claim("three", []) is None
    assert opened(out).epoch == epoch + 1


def test_a_claim_notices_every_commit_even_one_that_could_be_rebased_over(out: str) -> None:
    found, epoch = claimed(out)
    planned = opened(out)
    append_nothing(out)
    assert planned.claim("two", []) is None
    found.commit([write_fragment(out, "a", ["1"], epoch)], "one", epoch)
    assert found.version == opened(out).version


def test_a_commit_moves_a_table_so_that_a_plan_made_before_it_cannot_claim(out: str) -> None:
    running, epoch = claimed(out)
    planned = opened(out)
    running.commit([write_fragment(out, "a", ["1"], epoch)], "one", epoch)
    assert planned.claim("two", []) is None


def test_only_a_commit_makes_files_visible(out: str) -> None:
    found, epoch = claimed(out)
    fragments = [write_fragment(out, name, [f"{name}1", f"{name}2"], epoch) for name in "ab"]
    assert ids(out) == []
    found.commit(fragments, "one", epoch)
    assert ids(out) == ["a1", "a2", "b1", "b2"]
    assert found.files() == opened(out).files()
    assert len(found.files()) == 2


def test_commits_follow_one_another_on_one_table(out: str) -> None:
    found, epoch = claimed(out)
    for number in range(3):
        found.commit([write_fragment(out, "a", [str(number)], epoch)], "one", epoch)
    assert ids(out) == ["0", "1", "2"]
    assert found.version == opened(out).version == 4


def test_an_overtaken_run_cannot_commit_and_is_told_by_whom(out: str) -> None:
    found, epoch = claimed(out)
    assert opened(out).claim("newer-run", []) == epoch + 1
    with pytest.raises(OvertakenError, match=r"newer-run has taken over") as caught:
        found.commit([write_fragment(out, "a", ["1"], epoch)], "one", epoch)
    assert caught.value.exit_code == 3
    assert ids(out) == []


def test_an_overtaken_run_keeps_what_it_committed_before(out: str) -> None:
    found, epoch = claimed(out)
    found.commit([write_fragment(out, "a", ["1"], epoch)], "one", epoch)
    newer = opened(out)
    assert newer.claim("two", []) == epoch + 1
    newer.commit([write_fragment(out, "a", ["2"], epoch + 1)], "two", epoch + 1)
    with pytest.raises(OvertakenError):
        found.commit([write_fragment(out, "a", ["3"], epoch)], "one", epoch)
    assert ids(out) == ["1", "2"]


def test_a_commit_lands_once_after_maintenance_of_others(out: str) -> None:
    found, epoch = claimed(out)
    maintain(out, "note")
    maintain(out, "comment")
    found.commit([write_fragment(out, "a", ["1"], epoch)], "one", epoch)
    found.commit([write_fragment(out, "a", ["2"], epoch)], "one", epoch)
    assert ids(out) == ["1", "2"]
    assert set(commit_ids(out).values()) == {1}


def test_a_commit_lands_once_after_a_commit_of_the_same_epoch(out: str) -> None:
    found, epoch = claimed(out)
    opened(out).commit([write_fragment(out, "a", ["other"], epoch)], "one", epoch)
    found.commit([write_fragment(out, "a", ["own"], epoch)], "one", epoch)
    assert ids(out) == ["other", "own"]
    assert set(commit_ids(out).values()) == {1}


def test_a_transaction_of_another_application_does_not_overtake(out: str) -> None:
    found, epoch = claimed(out)
    properties = CommitProperties(app_transactions=[Transaction("someone-else", 999)])
    DeltaTable(f"{out}/{PREDICTIONS}").alter.add_columns([Field("note", "string")], commit_properties=properties)
    found.commit([write_fragment(out, "a", ["1"], epoch)], "one", epoch)
    assert ids(out) == ["1"]


def test_a_table_that_cannot_be_read_is_one_sentence(out: str) -> None:
    Predictions.create(out, STORAGE, [])
    (log,) = Path(out, PREDICTIONS, "_delta_log").glob("*.json")
    log.write_text("no json\n")
    with pytest.raises(TableError, match="Cannot use the table") as caught:
        Predictions.open(out, STORAGE)
    assert "\n" not in str(caught.value)


def test_a_commit_can_put_files_in_the_place_of_others_at_once(out: str) -> None:
    table, epoch = claimed(out)
    old, other = write_fragment(out, "100% a/b", ["1", "2"], epoch), write_fragment(out, "c", ["3"], epoch)
    table.commit([old, other], "one", epoch)
    new = write_fragment(out, "100% a/b", ["1"], epoch)
    before = table.version
    table.commit([], "one", epoch, {old.path: new, other.path: None})
    assert table.version == before + 1
    assert ids(out) == ["1"]
    assert (table.holders(old.path), table.holders(other.path)) == ([new.path], [])
    assert sorted(DeltaTable(f"{out}/{PREDICTIONS}", version=before).file_uris()) == sorted(
        f"{out}/{PREDICTIONS}/{one.path}" for one in (old, other)
    )
    assert Path(out, PREDICTIONS, old.path).exists()  # for those who read the version before
    assert orphans.delete(table, range(epoch + 1)) == 2
    assert not Path(out, PREDICTIONS, old.path).exists()


def test_rows_that_maintenance_has_moved_are_found_again(out: str) -> None:
    table, epoch = claimed(out)
    olds = [write_fragment(out, "100% a/b", [id_], epoch) for id_ in "12"]
    table.commit(olds, "one", epoch)
    compacted = write_fragment(out, "100% a/b", ["1", "2"], epoch)
    opened(out).commit([], "maintenance", epoch, {olds[0].path: compacted, olds[1].path: None})
    with pytest.raises(MovedError, match=r"Maintenance has replaced files"):
        table.commit([write_fragment(out, "x", ["1"], epoch)], "one", epoch, {olds[0].path: None})
    assert ids(out) == ["1", "2"]
    assert [table.holders(old.path) for old in olds] == [[compacted.path]] * 2
    rest = write_fragment(out, "100% a/b", ["2"], epoch)
    table.commit([write_fragment(out, "x", ["1"], epoch)], "one", epoch, {compacted.path: rest})
    assert ids(out) == ["1", "2"]
    assert [table.holders(old.path) for old in olds] == [[rest.path]] * 2


def test_the_owner_of_a_table_is_the_run_that_claimed_it_last(out: str) -> None:
    table, epoch = claimed(out, "one")
    assert table.owner() == "one"
    table.commit([write_fragment(out, "a", ["1"], epoch)], "one", epoch)
    maintain(out)
    assert opened(out).owner() == "one"
    assert opened(out).claim("two", []) == epoch + 1
    assert opened(out).owner() == "two"
    assert Predictions.create(f"{out}2", STORAGE, []).owner() is None
