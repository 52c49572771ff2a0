"""Exports with the labels of a head."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.face.opened_space import open_space
from pipeline.labels.relabelling import relabel
from tests.support.histories import History
from tests.support.making import STORAGE


def test_labels_of_a_head_are_columns_and_conditions_of_an_export(
    history: History, saved: str, tmp_path: Path
) -> None:
    relabel(str(history.path), saved, STORAGE)
    space = open_space(str(history.path))
    asked = {"columns": ["image_id", "species.label"], "where": "species.label <> 'owl'"}
    made = space.export(str(tmp_path / "new"), rows_per_file=3, **asked)
    rows = [row for file in made.files for row in pq.read_table(tmp_path / "new" / file.path).to_pylist()]
    assert sorted(rows, key=lambda row: row["image_id"]) == sorted(
        space.to_arrow(**asked).to_pylist(), key=lambda row: row["image_id"]
    )
    assert 0 < len(rows) < 12


@pytest.mark.parametrize("options", [{"since": 1}, {"address": "auto"}])
def test_changes_do_not_have_labels_of_a_head_and_tasks_do_not_write_them(
    options: dict[str, object], history: History, saved: str, tmp_path: Path
) -> None:
    relabel(str(history.path), saved, STORAGE)
    with pytest.raises(ConfigError, match="Labels of the head species are exported with all rows, by one process"):
        open_space(str(history.path)).export(str(tmp_path / "new"), where="species.score > 0", **options)  # type: ignore[arg-type]
