"""Manifests for tests, and what is read of them."""

import gzip
import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import ManifestConfig
from pipeline.errors import ManifestError
from pipeline.planning import manifest
from pipeline.schema import ORDINAL
from tests.support.making import STORAGE

CANONICAL = ["uri", "image_id", "dataset", "version", "offset", "length"]


def read(scratch: Path, *paths: object, **settings: Any) -> pa.Table:
    """The checked rows of manifests, in order."""
    return read_with_notes(scratch, *paths, **settings)[0]


def read_with_notes(
    scratch: Path, *paths: object, check_text: bool = False, id_format: int = 2, **settings: Any
) -> tuple[pa.Table, list[str]]:
    """The checked rows, and what is said of the manifests."""
    config = ManifestConfig(path=tuple(map(str, paths)), **settings)
    with duckdb.connect() as connection:
        found = manifest.create_input(
            connection, config, STORAGE, scratch, id_format=id_format, check_text=check_text
        )
        return connection.sql(f"FROM input ORDER BY {ORDINAL}").to_arrow_table(), [*found.notes]


def refusal(scratch: Path, *paths: object, **settings: Any) -> str:
    with pytest.raises(ManifestError) as caught:
        read(scratch, *paths, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The same rows as Parquet, CSV or JSONL, by the name of the file."""
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif ".csv" in path.name or ".tsv" in path.name:
        separator = "\t" if ".tsv" in path.name else ","
        lines = [table.column_names, *([row[name] for name in table.column_names] for row in rows)]
        text = "".join(separator.join("" if v is None else str(v) for v in line) + "\n" for line in lines)
        write_text(path, text)
    else:
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return path


def parquet(folder: Path, columns: dict[str, Any], name: str = "m.parquet") -> Path:
    """A Parquet file of these columns."""
    pq.write_table(pa.table(columns), folder / name)
    return folder / name


def write_text(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
