"""Which column of a manifest means what, whoever wrote it."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.config import ManifestColumns, ManifestConfig
from pipeline.planning import manifest
from pipeline.schema import PROBLEM
from tests.support.making import STORAGE
from tests.support.manifests import parquet, read, read_with_notes, refusal, write_rows


def raw_text(*values: bytes) -> pa.Array:
    """A column of text that holds these bytes, whatever they are."""
    return pa.array(values, pa.binary()).view(pa.string())


@pytest.mark.parametrize("name", ["m.parquet", "m.csv", "m.jsonl"])
def test_columns_are_found_whatever_their_letter_case(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / name, [{"URI": "/a", "Dataset": "x", "Image_ID": "i", "CAPTION": "c"}])
    (row,) = read(tmp_path, path, keep=("caption",)).to_pylist()
    assert (row["uri"], row["dataset"], row["image_id"], row["caption"]) == ("/a", "x", "i", "c")


def test_the_spelling_that_is_asked_for_comes_first(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"uri": ["/a"], "Url": ["/b"], "URL": ["/c"]})
    assert read(tmp_path, path, columns=ManifestColumns(uri="uri")).column("uri").to_pylist() == ["/a"]


@pytest.mark.parametrize(
    ("there", "meant"), [("data_set", "dataset"), ("Image ID", "image_id"), ("versions", "version")]
)
def test_a_column_that_may_be_meant_is_named(tmp_path: Path, there: str, meant: str) -> None:
    _, notes = read_with_notes(tmp_path, parquet(tmp_path, {"uri": ["/a"], there: ["x"]}))
    assert len(notes) == 1
    assert f"no column {meant!r}" in notes[0]
    assert f"called {there!r}" in notes[0]
    assert f"manifest.columns.{meant}" in notes[0]


def test_columns_that_have_nothing_to_do_with_ours_are_not_named(tmp_path: Path) -> None:
    columns = {"uri": ["/a"], "caption": ["x"], "width": [1], "label": ["y"], "split": ["train"], "size": [7]}
    assert read_with_notes(tmp_path, parquet(tmp_path, columns))[1] == []


def test_a_manifest_may_use_the_names_that_its_reader_adds(tmp_path: Path) -> None:
    for number in range(2):
        columns = {
            "uri": [f"/{number}a", f"/{number}b"],
            "file_row_number": [7, 7],
            "File_Index": [1, 1],
            "filename": "xy",
        }
        parquet(tmp_path, {key: list(value) for key, value in columns.items()}, f"{number}.parquet")
    rows = read(tmp_path, tmp_path / "*.parquet", keep=("file_row_number", "filename"))
    assert rows.column("uri").to_pylist() == ["/0a", "/0b", "/1a", "/1b"]
    assert rows.column("file_row_number").to_pylist() == [7] * 4
    assert rows.column("filename").to_pylist() == ["x", "y"] * 2


def test_images_beside_such_names_are_pointed_at_where_they_are(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"file_row_number": [5, 5], "bytes": [b"1", b"2"]})
    rows = read(tmp_path, path)
    assert rows.column(schema.CARRIED_IN).to_pylist() == [str(path)] * 2
    assert rows.column(schema.ROW).to_pylist() == [0, 1]


def test_text_in_parquet_that_is_not_utf_8_costs_that_value(tmp_path: Path) -> None:
    columns = {"uri": raw_text(b"/a", b"/\xe9", b"/c"), "caption": raw_text(b"\xff", b"ok", b"ok"), "n": [1, 2, 3]}
    path = parquet(tmp_path, columns)
    rows, notes = read_with_notes(tmp_path, path, keep=("caption", "n"), check_text=True)
    assert rows.column("uri").to_pylist() == ["/a", None, "/c"]
    assert rows.column("caption").to_pylist() == [None, "ok", "ok"]
    assert rows.column("n").to_pylist() == [1, 2, 3]
    assert rows.column(PROBLEM).to_pylist() == [None, f"uri is not UTF-8 (row 2 of {path})", None]
    assert len(notes) == 1


def test_text_that_is_stored_as_bytes_is_text(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"uri": ["/ä".encode(), b"/\xe9"], "dataset": ["ö".encode(), b"x"]})
    rows = read(tmp_path, path)
    assert rows.column("uri").to_pylist() == ["/ä", None]
    assert rows.column("dataset").to_pylist() == ["ö", "x"]
    assert rows.column(PROBLEM).to_pylist() == [None, "uri is not UTF-8"]


def test_a_kept_column_has_the_common_type_of_its_files(tmp_path: Path) -> None:
    kinds = {"null": pa.nulls(1), "int": [3], "double": [4.5], "text": ["x"], "none": None}

    def kept(*names: str) -> tuple[pa.DataType, list[Any]]:
        folder = tmp_path / "-".join(names)
        folder.mkdir()
        for number, name in enumerate(names):
            column = {} if kinds[name] is None else {"k": kinds[name]}
            parquet(folder, {"uri": [f"/{number}"], **column}, f"{number}.parquet")
        rows = read(folder, folder / "*.parquet", keep=("k",)).column("k")
        return rows.type, rows.to_pylist()

    assert kept("null", "int") == (pa.int64(), [None, 3])
    assert kept("none", "int") == (pa.int64(), [None, 3])
    assert kept("int", "double") == (pa.float64(), [3.0, 4.5])
    assert kept("double", "text") == (pa.string(), ["4.5", "x"])
    assert kept("null", "null") == (pa.string(), [None, None])


def test_a_name_can_be_switched_off(tmp_path: Path) -> None:
    columns = {"uri": ["/a"], "offset": [1], "length": [2], "version": ["v"], "dataset": ["d"], "image_id": ["i"]}
    off = ManifestColumns(length=None, version=None, dataset=None, image_id=None)
    (row,) = read(tmp_path, parquet(tmp_path, columns), columns=off).to_pylist()
    assert [row[name] for name in ("image_id", "dataset", "version", "offset", "length", PROBLEM)] == [
        *("/a", "images"),
        *[None] * 4,
    ]


def test_only_files_with_a_binary_column_carry_images(tmp_path: Path) -> None:
    first = parquet(tmp_path, {"uri": ["in"], "bytes": [b"x"]}, "1.parquet")
    parquet(tmp_path, {"uri": ["/b.jpg"]}, "2.parquet")
    rows = read(tmp_path, tmp_path / "*.parquet")
    assert rows.column(schema.CARRIED_IN).to_pylist() == [str(first), None]


def test_a_binary_column_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"input.jpg": [b"x"]})
    rows = read(tmp_path, path, columns=ManifestColumns(bytes="Input.JPG"))
    assert rows.column(schema.CARRIED_IN).to_pylist() == [str(path)]


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_a_field_of_a_struct_can_be_the_uri(tmp_path: Path) -> None:
    images = pa.array([{"bytes": None, "path": "i/1.jpg"}, {"bytes": b"x", "path": None}, None], IMAGE)
    path = parquet(tmp_path, {"image": images})
    rows = read(tmp_path, path, columns=ManifestColumns(bytes="image.bytes", uri="image.path"))
    assert rows.column("uri").to_pylist() == [f"{tmp_path}/i/1.jpg", f"{path}#row=1", f"{path}#row=2"]


def selected(folder: Path, where: str) -> list[str]:
    """The uris of the rows that a condition selects, of all Parquet files in a folder."""
    with duckdb.connect() as connection:
        config = ManifestConfig(path=(str(folder / "*.parquet"),))
        manifest.create_input(connection, config, STORAGE, folder, where, id_format=2)
        rows = connection.sql(f"SELECT uri FROM input WHERE {schema.SELECTED} ORDER BY uri").fetchall()
    return [uri for (uri,) in rows]


def test_a_condition_may_use_a_column_that_only_some_files_have(tmp_path: Path) -> None:
    parquet(tmp_path, {"uri": ["/a", "/b"], "stars": [1, 5]}, "1.parquet")
    parquet(tmp_path, {"uri": ["/c"], "dataset": ["d"]}, "2.parquet")
    assert selected(tmp_path, "stars > 3") == ["/b"]


def test_a_condition_sees_a_column_as_its_file_has_it(tmp_path: Path) -> None:
    parquet(tmp_path, {"uri": ["/a", "/b"], "z": [9, 100]}, "1.parquet")
    parquet(tmp_path, {"uri": ["/c"], "z": ["x"]}, "2.parquet")
    assert selected(tmp_path, "z > '10'") == ["/b", "/c"]


@pytest.mark.parametrize("folder", ["lake [2024]", "a[b", "[!x]", "q?", "plain"])
def test_brackets_in_a_folder_are_a_part_of_its_name(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    parquet(tmp_path / folder, {"uri": ["/a"]}, "m1.parquet")
    parquet(tmp_path / folder, {"uri": ["/b"]}, "m[2].parquet")
    (tmp_path / folder / "m3.csv").write_text("uri\n/c\n")
    pattern = tmp_path / folder / "m*"
    if "?" in folder:  # a star or a question mark makes a pattern of its folder, unless the whole name exists
        pattern = tmp_path / folder / "m1.parquet"
    expected = ["/a"] if "?" in folder else ["/a", "/c", "/b"]
    assert read(tmp_path, pattern).column("uri").to_pylist() == expected
    assert read(tmp_path, tmp_path / folder / "m[2].parquet").column("uri").to_pylist() == ["/b"]


def test_brackets_after_a_star_are_a_pattern(tmp_path: Path) -> None:
    for name in ("m1", "m2", "m3"):
        parquet(tmp_path, {"uri": [f"/{name}"]}, f"{name}.parquet")
    assert read(tmp_path, tmp_path / "m[13].par*").column("uri").to_pylist() == ["/m1", "/m3"]


MIXED: dict[str, tuple[Any, Any, list[Any]]] = {
    "whole numbers and floats": ([1, 2**53], [0.5], [1.0, 2.0**53, 0.5]),
    "whole numbers that no float has": ([2**53 + 1], [0.5], ["9007199254740993", "0.5"]),
    "short floats": (pa.array([2**24 + 1], pa.int32()), pa.array([0.5], pa.float32()), [2.0**24 + 1, 0.5]),
    "decimals": (pa.array(["0.10"]).cast(pa.decimal128(5, 2)), [0.25], ["0.10", "0.25"]),
    "small and large": (pa.array([1], pa.int8()), pa.array([2**40], pa.int64()), [1, 2**40]),
    "truth": ([True], [2], ["true", "2"]),
}


@pytest.mark.parametrize("kind", MIXED)
def test_values_of_a_kept_column_survive_files_of_different_types(tmp_path: Path, kind: str) -> None:
    first, second, expected = MIXED[kind]
    parquet(tmp_path, {"uri": [f"/{n}" for n in range(len(first))], "k": first}, "1.parquet")
    parquet(tmp_path, {"uri": [f"/x{n}" for n in range(len(second))], "k": second}, "2.parquet")
    assert read(tmp_path, tmp_path / "*.parquet", keep=("k",)).column("k").to_pylist() == expected


def test_objects_without_keys_are_rows(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text('{}\n{}\n{"uri": "/a"}\n')
    assert read(tmp_path, tmp_path / "1.jsonl").column(PROBLEM).to_pylist() == ["uri is missing"] * 2 + [None]
    (tmp_path / "2.jsonl").write_text("{}\n{}\n")
    assert "2.jsonl has no column 'uri'" in refusal(tmp_path, tmp_path / "2.jsonl")


def test_a_file_without_columns_and_rows_is_no_obstacle(tmp_path: Path) -> None:
    pq.write_table(pa.table({}), tmp_path / "1.parquet")
    parquet(tmp_path, {"uri": ["/a"]}, "2.parquet")
    assert read(tmp_path, tmp_path / "*.parquet").num_rows == 1


@pytest.mark.parametrize("kind", ["dictionary", "struct"])
def test_text_inside_other_types_that_is_not_utf_8_costs_that_value(tmp_path: Path, kind: str) -> None:
    text = raw_text(b"/a", b"/\xe9")
    if kind == "dictionary":
        path = parquet(tmp_path, {"uri": text.dictionary_encode()})
        settings: dict[str, Any] = {}
    else:
        path = parquet(tmp_path, {"m": pa.StructArray.from_arrays([text], ["path"])})
        settings = {"columns": ManifestColumns(uri="m.path")}
    rows, _ = read_with_notes(tmp_path, path, check_text=True, **settings)
    assert [uri and uri[-2:] for uri in rows.column("uri").to_pylist()] == ["/a", None]
    assert rows.column(PROBLEM).to_pylist()[1] is not None


def test_a_key_of_json_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"uri": "/a", "m": {"a\\"b": "x", "c/~d": "y"}}\n')
    rows = read(tmp_path, tmp_path / "m.jsonl", keep=('m.a"b', "m.c/~d"))
    assert [rows.column(name).to_pylist() for name in ('m.a"b', "m.c/~d")] == [["x"], ["y"]]


def test_long_text_in_parquet_is_checked_some_rows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.planning.parquet_copy.BATCH_BYTES", 1 << 20)
    uris = [f"data:,{number:05}{'x' * 10_000}" for number in range(1000)]
    path = parquet(tmp_path, {"uri": uris, "picture": [b"y" * 1000] * 1000})
    rows, _ = read_with_notes(tmp_path, path, check_text=True)
    assert rows.column("uri").to_pylist() == uris
    (copy,) = tmp_path.glob("rewritten-*.parquet")
    groups = pq.ParquetFile(copy).metadata
    assert max(groups.row_group(number).num_rows for number in range(groups.num_row_groups)) <= 200
