"""Rows become files of one dataset and outcome each, and the files lose the rows that newer files replace."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.errors import MovedError
from pipeline.output.fragment import RemainingRows
from pipeline.output.fragment_files import write_fragments, write_remaining_rows
from pipeline.storage.filesystems import Storage
from tests.support.histories import History
from tests.support.making import write_fragment


def test_rows_of_many_datasets_are_in_the_order_of_their_ids_in_each_file(tmp_path: Path) -> None:
    same = {"uri": "u", "run_id": "run", "finished_at": datetime.now(UTC)}
    outcomes = ["failed", "ok", "ok"]
    rows = [{"image_id": f"{n:02}", "dataset": f"d{n % 7}", "outcome": outcomes[n % 3], **same} for n in range(50)]
    blocks = [pa.Table.from_pylist(part[::-1], schema=schema.scored([])) for part in (rows[20:], rows[:20])]
    results = write_fragments(*blocks, output=str(tmp_path), storage=Storage(), epoch=1)
    assert len({(one.fragment.dataset, one.fragment.outcome) for one in results}) == len(results) == 14
    for one in (result.fragment for result in results):
        found = pq.read_table(tmp_path / "predictions" / one.path, partitioning=None)["image_id"].to_pylist()
        ours = [row["image_id"] for row in rows if (row["dataset"], row["outcome"]) == (one.dataset, one.outcome)]
        assert found == ours
        assert (one.statistics.low["image_id"], one.statistics.high["image_id"]) == (ours[0], ours[-1])


def test_writing_many_datasets_does_not_copy_all_rows_for_each_of_them(tmp_path: Path) -> None:
    same = {"uri": "u", "outcome": "ok", "run_id": "run", "finished_at": datetime.now(UTC)}
    rows = [{"image_id": f"{n}", "dataset": f"d{n}", "embedding": [0.5] * 768, **same} for n in range(32)]
    block = pa.Table.from_pylist(rows, schema=schema.scored([]))
    usual = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(counted)
    try:
        results = write_fragments(*[block] * 128, output=str(tmp_path), storage=Storage(), epoch=1)
    finally:
        pa.set_memory_pool(usual)
    assert sum(one.fragment.rows for one in results) == 32 * 128
    assert counted.max_memory() < 2 * 128 * block.nbytes  # eight datasets are written at once


def test_a_file_is_written_without_the_rows_whose_ids_newer_files_hold(tmp_path: Path) -> None:
    def remaining(path: str, *newer: str) -> RemainingRows:
        return write_remaining_rows(path, list(newer), output=str(tmp_path), storage=Storage(), epoch=2)

    old = write_fragment(str(tmp_path), "a b/%", ["4", "1", "2", "3"], 1).path
    first, second, all_, none = (
        write_fragment(str(tmp_path), "a b/%", ids, 2).path for ids in (["3", "new"], ["1"], list("1234"), ["5"])
    )
    found = remaining(old, first, second)
    assert found.fragment is not None
    assert (found.removed, found.fragment.rows, found.fragment.dataset) == (2, 2, "a b/%")
    kept = pq.read_table(tmp_path / "predictions" / found.fragment.path, partitioning=None)
    assert kept["image_id"].to_pylist() == ["2", "4"]
    assert (remaining(old, all_), remaining(old, none)) == (RemainingRows(4, None), RemainingRows(0, None))
    for gone in ((old, "dataset=a/outcome=ok/2-gone.parquet"), ("dataset=a/outcome=ok/1-gone.parquet", first)):
        with pytest.raises(MovedError, match="gone"):
            remaining(*gone)


def test_rows_that_another_program_has_rewritten_can_be_replaced(tmp_path: Path) -> None:
    history = History(tmp_path / "out")
    history.run(ok="abc")
    history.delete_by_other_program("b")
    history.run(ok="a")
    assert sorted(history.reader().to_arrow(["image_id"])["image_id"].to_pylist()) == ["a", "c"]
