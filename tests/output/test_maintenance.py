"""Compaction, vacuum and history change no row, also beside a run."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipeline.errors import OvertakenError, TableError
from pipeline.output import compaction, maintenance, orphans
from pipeline.output.heartbeat import Heartbeat
from pipeline.output.layout import PREDICTIONS
from pipeline.output.table import Predictions
from pipeline.storage.uris import join
from tests.support.making import STORAGE, write_fragment

DATASETS = ("007", "a b%/=ü", "c")


@pytest.fixture
def running(out: str) -> Predictions:
    """A table with four commits of one file for each dataset, by a run of epoch 1."""
    table = Predictions.create(out, STORAGE, [])
    assert table.claim("one", [], {"fingerprint": "f00"}) == 1
    for number in range(4):
        ids = [f"{number}-{row}" for row in range(3)]
        table.commit(
            [write_fragment(out, name, [f"{name} {id_}" for id_ in ids], 1) for name in DATASETS], "one", 1
        )
    return table


def rows_of(out: str) -> list[str]:
    table = DeltaTable(f"{out}/{PREDICTIONS}")
    return sorted(table.to_pyarrow_table(columns=["image_id"])["image_id"].to_pylist())


def on_disk(out: str) -> set[str]:
    return {str(path) for path in Path(out, PREDICTIONS).glob("*/*/*.parquet")}


def named(out: str) -> set[str]:
    return set(DeltaTable(f"{out}/{PREDICTIONS}").file_uris())


def compacted(out: str, **options: object) -> dict[str, tuple[int, int]]:
    found = compaction.compact(out, STORAGE, **options)  # type: ignore[arg-type]
    return {one.dataset: (one.files_before, one.files_after) for one in found}


def test_every_datasets_files_become_one_and_no_row_changes(out: str, running: Predictions) -> None:
    before = rows_of(out)
    assert compacted(out) == dict.fromkeys(DATASETS, (4, 1))
    assert rows_of(out) == before
    assert on_disk(out) == named(out)
    assert len(named(out)) == 3
    assert compacted(out) == dict.fromkeys(DATASETS, (1, 1))


def test_only_the_named_dataset_is_compacted_and_an_unknown_one_is_an_error(
    out: str, running: Predictions
) -> None:
    assert compacted(out, datasets=["a b%/=ü"]) == {"a b%/=ü": (4, 1)}
    assert len(named(out)) == 9
    with pytest.raises(TableError, match=r"has no dataset 'd'; it has 007, a b%/=ü, c\."):
        compacted(out, datasets=["d"])


def test_replaced_files_can_stay_for_older_readers_until_the_vacuum(out: str, running: Predictions) -> None:
    before = DeltaTable(f"{out}/{PREDICTIONS}")
    compacted(out, keep_replaced=True)
    assert len(on_disk(out)) == 15
    assert before.to_pyarrow_table().num_rows == 36
    assert maintenance.vacuum(out, STORAGE).files == 12
    assert on_disk(out) == named(out)


def test_a_run_commits_beside_a_compaction_and_replaces_rows_that_it_moved(out: str, running: Predictions) -> None:
    (old,) = {path for path in map(str, named(out)) if "dataset=c" in path and "c 2-1" in ids_in(path)}
    path = "/".join(old.split("/")[-3:])
    compacted(out)
    running.commit([write_fragment(out, "c", ["new"], 1)], "one", 1)
    (holder,) = running.holders(path)
    assert "c 2-1" in ids_in(f"{out}/{PREDICTIONS}/{holder}")
    assert len(rows_of(out)) == len(set(rows_of(out))) == 37


def ids_in(file: str) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_table(file, columns=["image_id"], partitioning=None)["image_id"].to_pylist())


def test_a_compaction_that_loses_a_race_with_a_replacement_is_made_again(
    out: str, running: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = Predictions.newest
    raced = []

    def behind(table: Predictions) -> DeltaTable:
        """A handle that is one replacement behind, once it matters."""
        handle = newest(table)
        if len(raced) == 1:
            path = "/".join(sorted(file for file in named(out) if "dataset=007" in file)[0].split("/")[-3:])
            rest = write_fragment(out, "007", ids_in(f"{out}/{PREDICTIONS}/{path}")[1:], 1)
            running.commit([], "one", 1, {path: rest})
        raced.append(1)
        return handle

    monkeypatch.setattr(Predictions, "newest", behind)
    assert compacted(out, datasets=["007"], keep_replaced=True) == {"007": (4, 1)}
    monkeypatch.undo()
    assert len(raced) >= 4
    assert len(rows_of(out)) == len(set(rows_of(out))) == 35


def test_a_vacuum_deletes_orphans_of_ended_runs_and_plans_and_old_strays_only(
    out: str, running: Predictions
) -> None:
    write_fragment(out, "c", ["orphan"], 1)
    stray, young = (
        Path(out, PREDICTIONS, "dataset=c/outcome=failed", f"part-{name}.parquet") for name in ("old", "new")
    )
    for path in (stray, young):
        path.write_bytes(b"x")
    os.utime(stray, (time.time() - 8 * 86_400,) * 2)
    plan = Path(out, "runs", "one", "pending", "00000.parquet")
    plan.parent.mkdir(parents=True)
    plan.write_bytes(b"x")
    dry = maintenance.vacuum(out, STORAGE, dry_run=True)
    assert (dry.files, dry.plans, len(on_disk(out))) == (2, 1, 15)
    assert maintenance.vacuum(out, STORAGE) == dry
    assert on_disk(out) == named(out) | {str(young)}
    assert not plan.exists()
    with pytest.raises(OvertakenError, match="vacuum-"):
        running.commit([], "one", 1)  # it only seemed dead


def test_a_compacted_file_whose_rows_have_moved_on_is_deleted_by_the_run(out: str, running: Predictions) -> None:
    compacted(out, datasets=["c"])
    (path,) = ("/".join(file.split("/")[-3:]) for file in named(out) if "dataset=c" in file)
    running.catch_up(1)
    rest = write_fragment(out, "c", ids_in(f"{out}/{PREDICTIONS}/{path}")[1:], 1)
    running.commit([], "one", 1, {path: rest})
    stray = Path(out, PREDICTIONS, "dataset=c", "outcome=failed", "part-1.parquet")
    stray.write_bytes(b"in flight")
    assert orphans.delete(running, range(2)) == 1
    assert on_disk(out) == named(out) | {str(stray)}


def test_a_vacuum_beside_a_live_run_leaves_all_of_its_files(out: str, running: Predictions) -> None:
    assert running.claim("two", []) == 2
    beating = Heartbeat(join(out, "runs", "two"), "two", STORAGE)
    plan = Path(out, "runs", "two", "pending", "00000.parquet")
    plan.parent.mkdir(parents=True)
    plan.write_bytes(b"x")
    fragment = write_fragment(out, "c", ["in flight"], 2)
    write_fragment(out, "c", ["orphan"], 1)
    assert maintenance.vacuum(out, STORAGE).files == 1
    assert plan.exists()
    running.commit([fragment], "two", 2)
    beating.stop()
    assert "in flight" in rows_of(out)


def test_the_history_says_who_added_how_many_rows(out: str, running: Predictions) -> None:
    compacted(out, datasets=["c"])
    newest, *commits, claim, created = maintenance.history(out, STORAGE)
    assert newest.what == "compact"
    assert newest.by.startswith("lakelens compact, ")
    assert [(one.version, one.by, one.what, one.rows, one.failed) for one in commits] == [
        (version, "one", "commit", 9, 9) for version in (5, 4, 3, 2)
    ]
    assert (claim.what, claim.fingerprint) == ("claim", "f00")
    assert created.version == 0
    assert abs((datetime.now(UTC) - newest.at).total_seconds()) < 60


def test_what_there_is_no_table_of_is_one_sentence(tmp_path: Path) -> None:
    for work in (maintenance.history, maintenance.vacuum, lambda *given: list(compaction.compact(*given))):
        with pytest.raises(TableError, match=r"^There are no predictions at .*\.$"):
            work(str(tmp_path), STORAGE)


def test_orphans_are_found_although_a_file_vanishes_meanwhile(
    out: str, running: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = running.newest()
    compacted(out)
    handles = [stale, running.newest()]
    monkeypatch.setattr(Predictions, "newest", lambda table: handles.pop(0))
    assert orphans.delete(running, range(9)) == 0
    assert handles == []
