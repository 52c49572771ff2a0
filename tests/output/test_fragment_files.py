"""A file is written again without the rows that newer files replace."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import MovedError
from pipeline.output.fragment import Rest
from pipeline.output.fragment_files import write_remaining_rows
from pipeline.storage.filesystems import Storage
from tests.support.making import write_fragment


def test_a_file_is_written_without_the_rows_whose_ids_newer_files_hold(tmp_path: Path) -> None:
    def rest_of(path: str, *newer: str) -> Rest:
        return write_remaining_rows(path, list(newer), output=str(tmp_path), storage=Storage(), epoch=2)

    old = write_fragment(str(tmp_path), "a b/%", ["1", "2", "3", "4"], 1).path
    first, second, all_, none = (
        write_fragment(str(tmp_path), "a b/%", ids, 2).path for ids in (["3", "new"], ["1"], list("1234"), ["5"])
    )
    found = rest_of(old, first, second)
    assert found.fragment is not None
    assert (found.removed, found.fragment.rows, found.fragment.dataset) == (2, 2, "a b/%")
    kept = pq.read_table(tmp_path / "predictions" / found.fragment.path, partitioning=None)
    assert kept["image_id"].to_pylist() == ["2", "4"]
    assert (rest_of(old, all_), rest_of(old, none)) == (Rest(4, None), Rest(0, None))
    for gone in ((old, "dataset=a/outcome=ok/2-gone.parquet"), ("dataset=a/outcome=ok/1-gone.parquet", first)):
        with pytest.raises(MovedError, match="gone"):
            rest_of(*gone)
