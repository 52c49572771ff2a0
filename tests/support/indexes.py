"""Outputs with a history and an index, and what an index holds."""

import json
from pathlib import Path
from typing import Any

from pipeline.output.layout import Layout
from pipeline.search.index import Index, open_index
from pipeline.search.index_lance import IndexFolder
from pipeline.search.index_update import IndexReport, update
from pipeline.storage.filesystems import Storage
from tests.support.histories import DIM, History, vector
from tests.support.making import STORAGE

FINGERPRINT = "f00"
ANN_ROWS = 8
"""The number of rows from which on these indexes are approximate."""


def described(history: History, fingerprint: str = FINGERPRINT) -> History:
    """The history, with the description of its space."""
    history.path.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": 2, "fingerprint": fingerprint, "dim": DIM})
    (history.path / "space.json").write_text(text)
    return history


def refreshed(path: Path | str, storage: Storage = STORAGE, **options: Any) -> IndexReport:
    return update(str(path), storage, **{"exact_rows": ANN_ROWS, **options})


def index_of(path: Path | str, storage: Storage = STORAGE) -> Index:
    found = open_index(str(path), storage)
    assert found is not None
    return found


def folder_of(path: Path | str, storage: Storage = STORAGE) -> IndexFolder:
    return IndexFolder(Layout(str(path)).index, storage)


def rows_in(index: Index) -> dict[str, tuple[str, list[float]]]:
    """Every row: `image_id` to its dataset and vector."""
    rows = index.dataset.to_table(columns=["image_id", "dataset", "embedding"]).to_pylist()
    found = {row["image_id"]: (row["dataset"], row["embedding"]) for row in rows}
    assert len(found) == len(rows)
    return found


def rows_of(history: History) -> dict[str, tuple[str, list[float]]]:
    """What the index of a history must hold. Its vectors have unit length, and float16 holds them."""
    return {id_: (dataset, vector(id_, run)) for id_, (dataset, run) in history.rows.items()}
