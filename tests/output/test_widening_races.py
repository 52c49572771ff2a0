"""A widening beside runs and maintenance, and one that fails or dies: no row is lost or written twice."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake.exceptions import DeltaError
from deltalake.table import TableAlterer

from pipeline.errors import (
    BusyError,
    LakeLensError,
    MovedError,
    OvertakenError,
    TableError,
)
from pipeline.output import compaction, handover, heartbeat, table, widening
from pipeline.output.heartbeat import Heartbeat
from pipeline.output.table import Predictions
from pipeline.output.widening import widen
from pipeline.storage.uris import join
from tests.support.making import STORAGE
from tests.support.rated import fragment, made, named, on_disk, rows_of


@pytest.fixture
def running(out: str) -> Predictions:
    return made(out, pa.array([3, None, 2**53]))


def test_a_widening_waits_for_the_run_at_work(out: str, running: Predictions) -> None:
    beating = Heartbeat(join(out, "runs", "one"), "one", STORAGE)
    before = sorted(Path(out).rglob("*"))
    with pytest.raises(BusyError, match=r"^The run one \(.*\) is writing "):
        widen(out, STORAGE, {"rating": "double"})
    assert sorted(Path(out).rglob("*")) == before
    beating.stop()
    assert widen(out, STORAGE, {"rating": "double"}) == 4


def test_a_run_that_only_seemed_dead_commits_no_file_of_the_old_type(out: str, running: Predictions) -> None:
    late = fragment(out, "007", ["late"], 2, pa.array([5]))
    widen(out, STORAGE, {"rating": "double"})
    with pytest.raises(OvertakenError, match="widen-"):
        running.commit([late], "one", 2)
    assert on_disk(out) == named(out)  # and its file is gone


def test_a_run_that_begins_meanwhile_finds_the_widening_at_work(
    out: str, running: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_types, alive = Predictions.change_types, []

    def looked(found: Predictions, *arguments: Any) -> None:
        owner = Predictions.existing(out, STORAGE).owner()
        alive.append(heartbeat.is_alive(join(out, "runs", str(owner)), STORAGE))
        change_types(found, *arguments)

    monkeypatch.setattr(Predictions, "change_types", looked)
    widen(out, STORAGE, {"rating": "double"})
    assert alive == [True]
    owner = str(Predictions.existing(out, STORAGE).owner())
    sign = heartbeat.read(join(out, "runs", owner), STORAGE)
    assert (sign.run_id, sign.status) == (owner, "ended")
    assert handover.read(join(out, "runs", owner), STORAGE).cleared_up


def test_a_widening_that_is_overtaken_stops_and_leaves_nothing(
    out: str, running: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, change_types = rows_of(out), Predictions.change_types

    def overtaken(found: Predictions, *arguments: Any) -> None:
        assert Predictions.existing(out, STORAGE).claim("taker", []) == 4
        change_types(found, *arguments)

    monkeypatch.setattr(Predictions, "change_types", overtaken)
    with pytest.raises(OvertakenError, match="taker"):
        widen(out, STORAGE, {"rating": "double"})
    assert rows_of(out) == before
    assert on_disk(out) == named(out)


@pytest.mark.parametrize("lands", [True, False])
def test_a_widening_that_dies_in_its_commit_loses_and_doubles_nothing(
    out: str, running: Predictions, monkeypatch: pytest.MonkeyPatch, lands: bool
) -> None:
    before, change_types = rows_of(out), Predictions.change_types

    def dying(found: Predictions, *arguments: Any) -> None:
        if lands:
            change_types(found, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Predictions, "change_types", dying)
        with pytest.raises(KeyboardInterrupt):
            widen(out, STORAGE, {"rating": "double"})
    assert rows_of(out) == before
    assert len(on_disk(out)) == 8
    monkeypatch.setattr(heartbeat, "is_alive", lambda *_: False)
    assert widen(out, STORAGE, {"rating": "double"}) == (0 if lands else 4)
    assert on_disk(out) == named(out)
    assert rows_of(out) == before


def test_a_file_that_cannot_be_written_ends_a_widening_which_takes_back_what_it_wrote(
    out: str, running: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, converted = rows_of(out), widening._convert

    def failing(source: pq.ParquetFile, new: Path, changes: widening.Changes) -> None:
        if source.metadata.num_rows == 3:
            raise OSError(28, "No space left on device")
        converted(source, new, changes)

    monkeypatch.setattr(widening, "_convert", failing)
    with pytest.raises(LakeLensError, match="no space left on device"):
        widen(out, STORAGE, {"rating": "double"})
    assert on_disk(out) == named(out)
    assert rows_of(out) == before


def test_a_commit_whose_answer_is_lost_is_found_again(
    out: str, running: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table.time, "sleep", lambda seconds: None)
    before, commit = rows_of(out), table.Change.commit

    def losing(change: table.Change, *arguments: Any) -> None:
        commit(change, *arguments)
        if change.columns is not None:
            raise OSError("connection reset by peer")

    monkeypatch.setattr(table.Change, "commit", losing)
    assert widen(out, STORAGE, {"rating": "double"}) == 4
    assert rows_of(out) == before
    assert on_disk(out) == named(out)


def test_a_store_that_refuses_timestamps_is_not_called_maintenance(
    out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(out, pa.array([date(2024, 1, 2)]))

    def refused(*_: object, **__: object) -> None:
        raise DeltaError("the store refused")

    monkeypatch.setattr(TableAlterer, "add_feature", refused)
    with pytest.raises(TableError, match="the store refused"):
        widen(out, STORAGE, {"rating": "timestamp"})


def test_binary_data_that_is_not_text_is_not_advised_to_become_text(out: str) -> None:
    made(out, pa.array([b"\xff"]))
    with pytest.raises(TableError, match="binary data") as caught:
        widen(out, STORAGE, {"rating": "text"})
    assert "widen it to text" not in str(caught.value)


def test_files_that_are_compacted_meanwhile_are_widened_as_well(
    out: str, running: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, change_types, raced = rows_of(out), Predictions.change_types, []

    def racing(found: Predictions, *arguments: Any) -> None:
        if not raced:
            raced.extend(compaction.compact(out, STORAGE, datasets=["007"]))
        change_types(found, *arguments)

    monkeypatch.setattr(Predictions, "change_types", racing)
    assert widen(out, STORAGE, {"rating": "double"}) == 3
    assert len(raced) == 1
    assert rows_of(out) == before
    assert on_disk(out) == named(out)


def test_no_visible_file_is_exchanged_for_nothing(out: str, running: Predictions) -> None:
    before = rows_of(out)
    with pytest.raises(MovedError):
        running.change_types({}, [pa.field("rating", pa.float64())], "one", 2, {})
    assert rows_of(out) == before


def test_a_compaction_and_a_widening_follow_each_other(out: str, running: Predictions) -> None:
    before = rows_of(out)
    list(compaction.compact(out, STORAGE))
    assert widen(out, STORAGE, {"rating": "double"}) == 2
    list(compaction.compact(out, STORAGE))
    assert widen(out, STORAGE, {"rating": "text"}) == 2
    assert [(id_, value and float(value)) for id_, value in rows_of(out)] == before
    assert on_disk(out) == named(out)
