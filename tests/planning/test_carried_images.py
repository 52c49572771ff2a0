"""Manifests that carry the bytes of images themselves."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.config import ManifestColumns
from pipeline.schema import PROBLEM
from tests.support.manifests import read, refusal, write_rows


def carrying(folder: Path, name: str = "bytes", **columns: list[Any]) -> Path:
    """A Parquet manifest of two images that it carries itself."""
    path = folder / "carrying.parquet"
    table = pa.table({name: pa.array([b"one", b"two"], pa.binary()), **columns})
    pq.write_table(table, path)
    return path


def pointers(rows: pa.Table) -> list[tuple[str | None, int | None]]:
    columns = (rows.column(name).to_pylist() for name in (schema.CARRIED_IN, schema.ROW))
    return list(zip(*columns, strict=True))


def test_an_image_that_the_manifest_carries_is_pointed_at_and_not_read(tmp_path: Path) -> None:
    path = carrying(tmp_path)
    rows = read(tmp_path, path)
    assert "bytes" not in rows.column_names
    assert rows.column("uri").to_pylist() == [f"{path}#row=0", f"{path}#row=1"]
    assert rows.column("image_id").to_pylist() == rows.column("uri").to_pylist()
    assert pointers(rows) == [(str(path), 0), (str(path), 1)]
    assert rows.column(PROBLEM).to_pylist() == [None, None]


def test_a_carried_image_keeps_the_uri_and_the_id_that_it_has(tmp_path: Path) -> None:
    path = carrying(tmp_path, uri=["a.jpg", ""], image_id=["a", "b"])
    rows = read(tmp_path, path)
    assert rows.column("uri").to_pylist() == [str(tmp_path / "a.jpg"), f"{path}#row=1"]
    assert rows.column("image_id").to_pylist() == ["a", "b"]


def test_a_struct_of_bytes_and_path_is_read_as_datasets_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"image": [{"bytes": b"x", "path": "x.jpg"}]}), path)
    rows = read(tmp_path, path, columns=ManifestColumns(bytes="image.bytes"))
    assert pointers(rows) == [(str(path), 0)]


def test_a_bytes_column_that_counts_bytes_carries_nothing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["/a"], "bytes": [17]}), tmp_path / "m.parquet")
    assert pointers(read(tmp_path, tmp_path / "m.parquet")) == [(None, None)]


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
def test_a_named_bytes_column_that_is_not_binary_is_refused(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / name, [{"uri": "/a", "data": "text"}])
    said = refusal(tmp_path, path, columns=ManifestColumns(bytes="data"))
    assert "'data' (manifest.columns.bytes)" in said
