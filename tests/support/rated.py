"""Tables with a kept column of ratings, and what their readers see."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from pipeline.output.fragment import Fragment
from pipeline.output.layout import PREDICTIONS, fragment_path
from pipeline.output.prediction_rows import parquet_bytes
from pipeline.output.table import Predictions
from pipeline.storage.uris import join
from tests.support.making import STORAGE, prediction_rows

DATASETS = ("007", "a b%/=ü")


def fragment(out: str, dataset: str, ids: Sequence[str], epoch: int, values: pa.Array | None) -> Fragment:
    """Failed rows with a kept column, or without it, as files have that were written before it was kept."""
    rows = prediction_rows(ids)
    rows = rows if values is None else rows.append_column("rating", values)
    path, data = fragment_path(dataset, "failed", epoch), parquet_bytes(rows)
    STORAGE.write(join(out, PREDICTIONS, path), data)
    return Fragment(path, dataset, "failed", len(ids), len(data))


def made(out: str, values: pa.Array) -> Predictions:
    """A table of two datasets, with two files in each, of which one is older than the kept column."""
    found = Predictions.create(out, STORAGE, [])
    assert found.claim("zero", []) == 1
    found.commit([fragment(out, name, [f"old of {name}"], 1, None) for name in DATASETS], "zero", 1)
    assert found.claim("one", [pa.field("rating", values.type)]) == 2
    ids = [str(number) for number in range(len(values))]
    found.commit(
        [fragment(out, name, [f"{id_} of {name}" for id_ in ids], 2, values) for name in DATASETS], "one", 2
    )
    return found


def rows_of(out: str) -> list[tuple[str, Any]]:
    found = DeltaTable(f"{out}/{PREDICTIONS}").to_pyarrow_table(columns=["image_id", "rating"]).sort_by("image_id")
    return list(zip(*(column.to_pylist() for column in found.columns), strict=True))


def on_disk(out: str) -> set[str]:
    return {str(path) for path in Path(out, PREDICTIONS).glob("*/*/*.parquet")}


def named(out: str) -> set[str]:
    return set(DeltaTable(f"{out}/{PREDICTIONS}").file_uris())


def actions(out: str, version: int) -> list[dict[str, Any]]:
    text = Path(out, PREDICTIONS, "_delta_log", f"{version:020}.json").read_text()
    return [json.loads(line) for line in text.splitlines()]
