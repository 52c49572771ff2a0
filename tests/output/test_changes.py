"""Changes between two versions of the predictions, compared with a model of the table over random histories."""

import os
import tempfile
from pathlib import Path

import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings, strategies as st

from pipeline.errors import VersionGoneError
from pipeline.output.changes import changes
from tests.support.histories import STEPS, History, Step, play, vector

HISTORIES = 200 if "LAKELENS_EVERY_STEP" in os.environ else 6


@pytest.fixture
def history(tmp_path: Path) -> History:
    """A table in which one run has labelled four images."""
    made = History(tmp_path / "out")
    made.run(ok="abcd")
    return made


def changed(history: History, since: int | None) -> tuple[dict[str, tuple[str, str]], set[str]]:
    """The upserts, as `History.rows` has them, and the deletes. The counts and vectors are checked on the way."""
    with changes(history.reader(), since) as found:
        rows = [row for batch in found.upserts() for row in batch.to_pylist()]
        gone = [row["image_id"] for batch in found.deletes() for row in batch.to_pylist()]
        assert (found.upserted, found.deleted) == (len(rows), len(gone))
        assert found.version == history.version
    assert all(row["embedding"] == vector(row["image_id"], row["run_id"]) for row in rows)
    upserts = {row["image_id"]: (row["dataset"], row["run_id"]) for row in rows}
    assert len(upserts) == len(rows)
    assert len(set(gone)) == len(gone)
    return upserts, set(gone)


def test_from_nothing_every_ok_row_is_an_upsert(history: History) -> None:
    history.run(failed="e")
    assert changed(history, None) == (history.rows, set())


def test_nothing_has_changed_since_the_same_version(history: History) -> None:
    assert changed(history, history.version) == ({}, set())


def test_new_and_recomputed_rows_are_upserts_and_rows_that_fail_now_are_deletes(
    history: History,
) -> None:
    before = history.version
    history.run(ok="be", failed="c")
    assert changed(history, before) == ({"b": ("street", "run-002"), "e": ("street", "run-002")}, {"c"})


@pytest.mark.parametrize("keep_replaced", [True, False])
def test_a_compaction_changes_nothing(history: History, keep_replaced: bool) -> None:
    history.run(ok="ef")
    before = history.version
    history.compact(keep_replaced=keep_replaced)
    assert changed(history, before) == ({}, set())


def test_changes_before_a_compaction_that_deleted_their_files_are_found(history: History) -> None:
    before = history.version
    history.run(ok="ae", failed="c")
    history.compact()
    assert changed(history, before) == ({"a": ("street", "run-002"), "e": ("street", "run-002")}, {"c"})


def test_another_outcome_and_another_dataset_have_their_own_changes(history: History) -> None:
    before = history.version
    history.run(ok="xy", failed="z", dataset="map")
    with changes(history.reader(), before, datasets=["street"]) as found:
        assert (found.upserted, found.deleted) == (0, 0)
    with changes(history.reader(), before, outcome="failed") as found:
        assert [row["image_id"] for batch in found.upserts(["image_id"]) for row in batch.to_pylist()] == ["z"]


def test_a_dataset_whose_rows_have_all_gone_has_deletes(history: History) -> None:
    before = history.version
    history.run(failed="abcd")
    with changes(history.reader(), before, datasets=["street"]) as found:
        assert (found.upserted, found.deleted) == (0, 4)


def test_a_version_whose_files_are_vacuumed_is_gone_and_the_error_names_it(history: History) -> None:
    before = history.version
    history.run(failed="a")
    history.vacuum()
    with pytest.raises(VersionGoneError, match=rf"since version {before} .* was deleted"):
        changed(history, before)
    assert changed(history, None) == (history.rows, set())


def test_a_version_whose_log_entries_have_expired_is_gone(history: History) -> None:
    before = history.version
    history.run(ok="e")
    log = history.path / "predictions" / "_delta_log"
    DeltaTable(log.parent).create_checkpoint()
    for version in range(before + 2):
        (log / f"{version:020}.json").unlink()
    with pytest.raises(VersionGoneError, match="entries of its log"):
        changed(history, before)


def test_a_version_newer_than_the_table_is_refused(history: History) -> None:
    with pytest.raises(VersionGoneError, match="older than 99"):
        changed(history, 99)


@settings(max_examples=HISTORIES, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, start=st.integers(0, 7))
def test_a_copy_that_applies_the_changes_equals_the_table_after_any_history(steps: list[Step], start: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder) / "out")
        history.run(ok="ab", failed="c")
        play(history, steps[:start])
        copy, since, compacted = dict(history.rows), history.version, any(s[0] == "compact" for s in steps[start:])
        play(history, steps[start:])
        try:
            upserts, gone = changed(history, since)
        except VersionGoneError:
            assert ("vacuum",) in steps[start:]
            return
        assert not gone & history.rows.keys()
        assert {id_: row for id_, row in {**copy, **upserts}.items() if id_ not in gone} == history.rows
        if not compacted and ("delete",) not in steps[start:]:
            assert upserts.keys() == {id_ for id_, row in history.rows.items() if copy.get(id_) != row}
