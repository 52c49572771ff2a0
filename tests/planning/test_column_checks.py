"""Columns that do not fit are refused, with what may be meant."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.config import ManifestColumns
from tests.support.manifests import parquet, refusal

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_a_missing_uri_column_is_told_with_the_one_that_may_be_meant(tmp_path: Path) -> None:
    assert "did you mean 'u-r-i'?" in refusal(tmp_path, parquet(tmp_path, {"u-r-i": ["/a"]}))


def test_a_file_of_a_set_that_has_neither_uri_nor_image_is_named(tmp_path: Path) -> None:
    parquet(tmp_path, {"uri": ["/a"]}, "1.parquet")
    second = parquet(tmp_path, {"path": ["/b"]}, "2.parquet")
    assert str(second) in refusal(tmp_path, tmp_path / "*.parquet")


LISTS = {
    "images.bytes": pa.array([[{"bytes": b"x", "path": "p"}]], pa.list_(IMAGE)),
    "images": pa.array([[b"x", b"y"]]),
    "rows.image.bytes": pa.array([{"image": [{"bytes": b"x", "path": "p"}]}]),
}


@pytest.mark.parametrize("column", LISTS)
def test_a_list_of_images_is_refused(tmp_path: Path, column: str) -> None:
    path = parquet(tmp_path, {column.split(".")[0]: LISTS[column], "uri": ["/a"]})
    said = refusal(tmp_path, path, columns=ManifestColumns(bytes=column))
    assert f"{path} holds lists in the column " in said
    assert "one row for each image" in said


def test_a_struct_that_is_named_instead_of_its_field_is_told(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"image": pa.array([{"bytes": b"x", "path": "p"}], IMAGE)})
    said = refusal(tmp_path, path, columns=ManifestColumns(bytes="image"))
    assert "is a struct" in said
    assert said.endswith(": image.bytes, image.path.")


URIS = {
    "image": pa.array([{"bytes": b"x", "path": "p"}], IMAGE),
    "images": pa.array([["/a", "/b"]]),
}


@pytest.mark.parametrize("column", URIS)
def test_a_uri_column_that_is_nested_is_refused(tmp_path: Path, column: str) -> None:
    path = parquet(tmp_path, {column: URIS[column]})
    said = refusal(tmp_path, path, columns=ManifestColumns(uri=column))
    assert f"{path} " in said
    assert f"{column!r}" in said
    assert ("image.path" if column == "image" else "one row for each image") in said


def test_two_columns_of_the_same_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["/a"]), pa.array(["/b"])], names=["uri", "uri"])
    pq.write_table(table, tmp_path / "m.parquet")
    said = refusal(tmp_path, tmp_path / "m.parquet")
    assert "'uri' and 'uri'" in said
    assert "rename one of them" in said


TWINS = {
    "m.parquet": pa.table({"URI": ["wrong"], "uri": ["right"]}),
    "m.csv": "URI,uri\nwrong,right\n",
    "m.jsonl": '{"uri": "a"}\n{"URI": "wrong", "uri": "right"}\n',
}


@pytest.mark.parametrize("name", TWINS)
def test_two_columns_of_one_name_in_different_letter_case_are_refused(tmp_path: Path, name: str) -> None:
    found = TWINS[name]
    if isinstance(found, str):
        (tmp_path / name).write_text(found)
    else:
        pq.write_table(found, tmp_path / name)
    said = refusal(tmp_path, tmp_path / name)
    assert "'URI'" in said
    assert "'uri'" in said
    assert said.endswith("; rename one of them.")


def test_two_fields_of_one_name_in_different_letter_case_are_refused(tmp_path: Path) -> None:
    images = pa.array([{"Path": "wrong", "path": "right"}])
    said = refusal(tmp_path, parquet(tmp_path, {"m": images}), columns=ManifestColumns(uri="m.path"))
    assert "'Path' and 'path'" in said


@pytest.mark.parametrize("name", [schema.ORDINAL, schema.SOURCE, "_LakeLens_x"])
def test_a_column_of_a_name_that_planning_uses_is_refused(tmp_path: Path, name: str) -> None:
    for path in (parquet(tmp_path, {"uri": ["a"], name: [0]}), tmp_path / "m.csv"):
        (tmp_path / "m.csv").write_text(f"uri,{name}\na,0\n")
        assert f"{path} has a column {name!r}" in refusal(tmp_path, path)


def test_a_message_shows_no_signature(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("https://b.example/a.jpg?X-Amz-Signature=SECRET,cat\n")
    said = refusal(tmp_path, tmp_path / "m.csv")
    assert "https://b.example/a.jpg" in said
    assert "SECRET" not in said
