"""Compacted files are ordered by id, encoded like the files of runs, and described in the log."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from pipeline import schema
from pipeline.errors import TableError
from pipeline.output import compaction
from pipeline.output.actions import Change
from pipeline.output.layout import PREDICTIONS
from pipeline.output.table import Predictions
from tests.support.making import STORAGE, write_fragment
from tests.support.tables import claimed, ids

IDS = [["c3", "a1"], ["b2", "a0"], ["z8", "z9"], ["z7"]]


@pytest.fixture
def table(out: str) -> Predictions:
    """A table of four files of one dataset."""
    found, epoch = claimed(out)
    found.commit([write_fragment(out, "d", one, epoch) for one in IDS], "one", epoch)
    return found


def on_disk(out: str) -> set[Path]:
    return set(Path(out, PREDICTIONS).glob("*/*/*.parquet"))


def test_rows_are_ordered_and_the_log_describes_them(out: str, table: Predictions) -> None:
    assert list(compaction.compact(out, STORAGE)) == [compaction.CompactionResult("d", 4, 1)]
    (file,) = on_disk(out)
    rows = pq.read_table(file, partitioning=None)
    assert rows["image_id"].to_pylist() == ["a0", "a1", "b2", "c3", "z7", "z8", "z9"]
    group = pq.ParquetFile(file).metadata.row_group(0)
    chunks = {group.column(number).path_in_schema: group.column(number) for number in range(group.num_columns)}
    assert "BYTE_STREAM_SPLIT" in chunks["embedding.list.element"].encodings
    log = Path(out, PREDICTIONS, "_delta_log", f"{DeltaTable(f'{out}/{PREDICTIONS}').version():020}.json")
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    (added,) = (action["add"] for action in actions if "add" in action)
    stats = json.loads(added["stats"])
    assert (stats["numRecords"], stats["minValues"]["image_id"], stats["maxValues"]["image_id"]) == (7, "a0", "z9")
    assert stats["nullCount"]["label"] == 7
    changes = [
        action.get("add", action.get("remove"))["dataChange"] for action in actions if "commitInfo" not in action
    ]
    assert changes == [False] * 5  # those who follow the table need not read a row again


def test_neighbours_in_the_order_of_ids_become_one_file(out: str, table: Predictions) -> None:
    sizes = [file.stat().st_size for file in on_disk(out)]
    groups = compaction.groups(table.visible_files(), target=2 * max(sizes))
    assert [[file.least_id for file in group] for group in groups] == [["a0", "a1"], ["z7", "z8"]]


def test_a_file_that_lacks_a_column_has_nulls_there(out: str, table: Predictions) -> None:
    caption = pa.field("caption", pa.string())
    epoch = table.claim("two", [caption])
    assert epoch is not None
    table.commit([write_fragment(out, "d", ["m"], epoch, {"caption": "x"})], "two", epoch)
    list(compaction.compact(out, STORAGE))
    (file,) = on_disk(out)
    rows = pq.read_table(file, partitioning=None)
    assert rows.schema.names == schema.fragment(table.columns()).names
    assert rows["caption"].to_pylist() == [None] * 4 + ["x"] + [None] * 3


@pytest.mark.parametrize("landed", [True, False])
def test_a_commit_whose_answer_is_lost_is_not_made_twice(
    landed: bool, out: str, table: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, failures = Change.commit, [DeltaError("the connection broke")]

    def failing(change: Change, *given: object) -> None:
        if not failures or landed:
            commit(change, *given)  # type: ignore[arg-type]
        if failures:
            raise failures.pop()

    monkeypatch.setattr(Change, "commit", failing)
    before, version = ids(out), table.version
    list(compaction.compact(out, STORAGE))
    assert ids(out) == before
    assert DeltaTable(f"{out}/{PREDICTIONS}").version() == version + 1
    assert len(on_disk(out)) == 1


def test_new_files_are_deleted_if_a_file_of_the_table_is_gone(
    out: str, table: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    grouped = compaction.groups
    monkeypatch.setattr(
        compaction,
        "groups",
        lambda files, target: [group[at : at + 2] for group in grouped(files, target) for at in (0, 2)],
    )
    (gone,) = (file for file in table.visible_files() if file.least_id == "z8")
    Path(table.layout.fragment(gone.path)).unlink()
    before = on_disk(out)
    with pytest.raises(TableError, match=r"^Cannot compact the dataset 'd' of .*: .*parquet is gone\.$"):
        list(compaction.compact(out, STORAGE))
    assert on_disk(out) == before
