"""Outputs of labelled and failed rows, written without Ray, a model or an image."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from pipeline import schema
from pipeline.output import compaction
from pipeline.output.fragment import Fragment
from pipeline.output.fragment_files import by_id, write_file
from pipeline.output.layout import Layout, fragment_path
from pipeline.output.table import Predictions
from tests.support.making import STORAGE, write_fragment

DIM = 8
OK_ROWS, FAILED_ROWS = 6, 2
"""Of each dataset."""

LAKES = {
    "mixed": ("007", "2024-01-01", "street a b"),
    "numbers": ("007", "42"),
    "years": ("2023", "2024"),
    "dates": ("2024-01-01", "2024-01-02"),
}
"""Dataset names: readers that guess types guess them from these."""


@dataclass(frozen=True)
class Output:
    """`path` is the output's, `vectors` are its embeddings by `image_id`."""

    path: Path
    datasets: tuple[str, ...]
    vectors: dict[str, list[float]]

    @property
    def rows(self) -> int:
        return len(self.datasets) * (OK_ROWS + FAILED_ROWS)

    @property
    def ok_rows(self) -> int:
        return len(self.datasets) * OK_ROWS


CAPTION = pa.field("caption", pa.string())
"""A column that only the second run of an output keeps."""


def ok_rows(ids: Sequence[str], vectors: Sequence[Sequence[float]], kept: dict[str, str], uri: str) -> pa.Table:
    """Rows of a fragment that have two labels and a vector each."""
    top = [{"label": "cat", "score": 0.75, "index": 0}, {"label": "dog", "score": 0.25, "index": 1}]
    always = {"uri": uri, "label": "cat", "score": 0.75, "labels": top, "embedding_norm": 2.0}
    always |= {"width": 640, "height": 480, "content_sha256": "0" * 64, "attempts": 1}
    always |= {"run_id": "r", "finished_at": datetime(2024, 1, 1, tzinfo=UTC)} | kept
    rows = [
        {schema.IMAGE_ID: id_, "embedding": list(vector), **always}
        for id_, vector in zip(ids, vectors, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=schema.fragment(schema.predictions([CAPTION] if kept else [])))


def write_output(path: Path, datasets: Sequence[str], uri: str = "u") -> Output:
    """An output of two runs. The last dataset is compacted, and the log has a checkpoint.

    Each dataset has `OK_ROWS` rows with a vector and `FAILED_ROWS` without. Only the second run keeps `CAPTION`.
    """
    table = Predictions.create(str(path), STORAGE, [])
    rng, vectors = np.random.default_rng(0), dict[str, list[float]]()
    for half, kept in enumerate([{}, {"caption": "a cat"}]):
        epoch = table.claim(f"run-{half}", [CAPTION] if kept else [])
        assert epoch is not None
        fragments = []
        for name in datasets:
            ids = [f"{name}/{half}{number}.jpg" for number in range(OK_ROWS // 2)]
            of_ids = _unit_vectors(rng, len(ids))
            vectors |= dict(zip(ids, of_ids, strict=True))
            fragments.append(written(path, name, ok_rows(ids, of_ids, kept, uri), epoch))
            fragments.append(write_fragment(str(path), name, [f"{name}/{half}bad.jpg"], epoch, kept))
        table.commit(fragments, f"run-{half}", epoch)
    (path / "space.json").write_text(json.dumps({"format": 2, "fingerprint": "f00", "dim": DIM}))
    list(compaction.compact(str(path), STORAGE, datasets=[datasets[-1]]))
    DeltaTable(Layout(str(path)).predictions).create_checkpoint()
    return Output(path, tuple(datasets), vectors)


def write_headless(path: Path, vectors: dict[str, list[float]]) -> None:
    """An output of these vectors, by `image_id`, of a model without a head."""
    table = Predictions.create(str(path), STORAGE, [])
    epoch = table.claim("run", [])
    assert epoch is not None
    rows = ok_rows(list(vectors), list(vectors.values()), {}, "u")
    for name in ("label", "score", "labels"):
        field = rows.schema.field(name)
        rows = rows.set_column(rows.column_names.index(name), field, pa.nulls(rows.num_rows, field.type))
    table.commit([written(path, "images", rows, epoch)] if vectors else [], "run", epoch)
    (path / "space.json").write_text(json.dumps({"format": 2, "fingerprint": "f00"}))


def placed(output: Output, folder: Path) -> Output:
    """A copy of an output in another folder, which a test may damage."""
    shutil.copytree(output.path, folder)
    return dataclasses.replace(output, path=folder)


def _unit_vectors(rng: np.random.Generator, count: int) -> list[list[float]]:
    raw = rng.normal(size=(count, DIM))
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    return [[float(value) for value in row] for row in unit.astype(np.float16).astype(np.float32)]


def written(path: Path, dataset: str, rows: pa.Table, epoch: int) -> Fragment:
    name = fragment_path(dataset, schema.OK, epoch)
    return write_file(rows, by_id(rows), name, output=str(path), storage=STORAGE)
