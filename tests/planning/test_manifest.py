"""Manifests of every form become the same rows; a listing makes one."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.config import ManifestColumns
from pipeline.schema import ORDINAL, PROBLEM, SELECTED
from tests.support.manifests import CANONICAL, read, refusal, write_rows

FORMATS = ["m.parquet", "m.csv", "m.csv.gz", "m.tsv", "m.jsonl", "m.ndjson.gz", "M.CSV"]
TEXTS = ["007", "2024-01-01", "2024-01-01 10:30:00", "1e5", "true", "1.50", "0x10", "NaN"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows_in_order(tmp_path: Path, name: str) -> None:
    rows = [
        {"image_id": f"id{i}", "uri": f"/lake/{i}.jpg", "dataset": "d", "version": "v", "offset": i, "length": 9}
        for i in (3, 1, 2)
    ]
    if name == "M.CSV":
        write_rows(tmp_path / "m.csv", rows).rename(tmp_path / name)
    else:
        write_rows(tmp_path / name, rows)
    table = read(tmp_path, tmp_path / name)
    assert table.select(list(rows[0])).to_pylist() == rows
    assert table.column(PROBLEM).null_count == 3
    assert table.schema.field("offset").type == pa.int64()


@pytest.mark.parametrize("name", ["m.parquet", "m.csv", "m.tsv", "m.jsonl"])
def test_numbers_and_dates_in_ids_datasets_and_versions_stay_text(tmp_path: Path, name: str) -> None:
    rows = [{"uri": f"/{i}", "image_id": t, "dataset": t, "version": t} for i, t in enumerate(TEXTS)]
    table = read(tmp_path, write_rows(tmp_path / name, rows))
    for column in ("image_id", "dataset", "version"):
        assert table.column(column).to_pylist() == TEXTS


def test_typed_ids_and_versions_become_their_text(tmp_path: Path) -> None:
    rows = [{"uri": "/a", "image_id": 7, "version": datetime(2024, 1, 2, 3, 4, 5)}]
    table = read(tmp_path, write_rows(tmp_path / "m.parquet", rows))
    assert table.select(["image_id", "version"]).to_pylist() == [
        {"image_id": "7", "version": "2024-01-02 03:04:05"}
    ]


def test_a_number_too_large_for_any_integer_type_keeps_its_digits_in_jsonl(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"uri": "/a", "image_id": 18446744073709551615}\n')
    assert read(tmp_path, tmp_path / "m.jsonl").column("image_id").to_pylist() == ["18446744073709551615"]


def test_columns_can_have_other_names_and_others_can_be_kept(tmp_path: Path) -> None:
    rows = [{"url": "/a", "source": "web", "caption": "a cat", "stars": 4, "uri": "not this one"}]
    columns = ManifestColumns(uri="url", dataset="source")
    for name in ("m.parquet", "m.csv", "m.jsonl"):
        table = read(
            tmp_path, write_rows(tmp_path / name, rows), columns=columns, keep=("caption", "stars"), dataset="x"
        )
        added = [ORDINAL, schema.CARRIED_IN, schema.ROW, SELECTED]
        assert table.column_names == [*CANONICAL, *added, "caption", "stars", PROBLEM]
        (row,) = table.to_pylist()
        stars = 4 if name == "m.parquet" else "4"
        assert (row["uri"], row["dataset"], row["caption"], row["stars"]) == ("/a", "web", "a cat", stars)


@pytest.mark.parametrize("column", ["my caption", "a.b", "Größe", 'q"q', "select", "filename"])
def test_a_kept_column_can_have_any_name(tmp_path: Path, column: str) -> None:
    pq.write_table(pa.table({"uri": ["/a"], column: ["x"]}), tmp_path / "m.parquet")
    assert read(tmp_path, tmp_path / "m.parquet", keep=(column,)).column(column).to_pylist() == ["x"]


def test_kept_columns_have_types_that_delta_knows(tmp_path: Path) -> None:
    table = pa.table({"uri": ["/a"], "u8": pa.array([1], pa.uint8()), "u64": pa.array([2**64 - 1], pa.uint64())})
    table = table.append_column("list", pa.array([[1, 2]])).append_column("half", pa.array([0.5], pa.float32()))
    pq.write_table(table, tmp_path / "m.parquet")
    kept = read(tmp_path, tmp_path / "m.parquet", keep=("u8", "u64", "list", "half"))
    assert [kept.schema.field(name).type for name in ("u8", "u64", "list", "half")] == [
        pa.int64(),
        pa.string(),
        pa.string(),
        pa.float32(),
    ]
    assert kept.column("u64").to_pylist() == ["18446744073709551615"]


def test_image_id_defaults_to_the_uri_and_dataset_to_the_config(tmp_path: Path) -> None:
    table = read(tmp_path, write_rows(tmp_path / "m.csv", [{"uri": "/a.jpg"}]), dataset="photos")
    assert table.select(["image_id", "dataset"]).to_pylist() == [{"image_id": "/a.jpg", "dataset": "photos"}]


def test_missing_values_have_the_same_defaults(tmp_path: Path) -> None:
    rows = [
        {"uri": "/a.jpg", "image_id": None, "dataset": None},
        {"uri": "/b.jpg", "image_id": "b", "dataset": "d"},
    ]
    for name in ("m.parquet", "m.csv", "m.jsonl"):
        table = read(tmp_path, write_rows(tmp_path / name, rows), dataset="photos")
        assert table.column("image_id").to_pylist() == ["/a.jpg", "b"]
        assert table.column("dataset").to_pylist() == ["photos", "d"]


def test_a_relative_uri_is_relative_to_its_manifest_not_to_the_process(tmp_path: Path) -> None:
    (tmp_path / "sub dir").mkdir()
    uris = ["x/a b.jpg", "s3://lake/b.jpg", "/abs/c.jpg", "../d.jpg", "file:///e.jpg"]
    write_rows(tmp_path / "sub dir" / "m.parquet", [{"uri": uri} for uri in uris])
    table = read(tmp_path, tmp_path / "sub dir" / "m.parquet")
    here = f"{tmp_path}/sub dir"
    assert table.column("uri").to_pylist() == [f"{here}/x/a b.jpg", *uris[1:3], f"{here}/../d.jpg", uris[4]]


def test_a_relative_manifest_path_gives_absolute_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "m.csv", [{"uri": "a.jpg"}])
    assert read(tmp_path, "m.csv").column("uri").to_pylist() == [f"{tmp_path}/a.jpg"]


def test_a_colon_in_a_relative_file_name_is_no_scheme(tmp_path: Path) -> None:
    uris = read(tmp_path, write_rows(tmp_path / "m.parquet", [{"uri": "shot:1.jpg"}])).column("uri")
    assert uris.to_pylist() == [f"{tmp_path}/shot:1.jpg"]


def test_a_list_of_manifests_keeps_its_order_across_formats(tmp_path: Path) -> None:
    paths = [
        write_rows(tmp_path / name, [{"uri": f"/{name}/{i}"} for i in range(2)])
        for name in ("z.csv", "a.parquet", "m.jsonl", "b.parquet")
    ]
    uris = read(tmp_path, *paths).column("uri").to_pylist()
    assert uris == [f"/{path.name}/{i}" for path in paths for i in range(2)]


def test_a_glob_takes_its_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", "c.csv"):
        write_rows(tmp_path / name, [{"uri": f"/{name}"}])
    assert read(tmp_path, tmp_path / "*.*").column("uri").to_pylist() == ["/a.parquet", "/b.parquet", "/c.csv"]


def test_files_may_differ_in_their_optional_columns(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [{"uri": "/a", "caption": "x"}])
    write_rows(tmp_path / "b.parquet", [{"caption": "y", "uri": "/b", "dataset": "d"}])
    write_rows(tmp_path / "c.csv", [{"caption": "z", "uri": "/c"}])
    table = read(tmp_path, *(tmp_path / name for name in ("a.parquet", "b.parquet", "c.csv")), keep=("caption",))
    assert table.column("caption").to_pylist() == ["x", "y", "z"]
    assert table.column("dataset").to_pylist() == ["images", "d", "images"]


def test_many_rows_keep_the_order_of_the_file(tmp_path: Path) -> None:
    uris = [f"/{(i * 7919) % 300_000}" for i in range(300_000)]
    pq.write_table(pa.table({"uri": uris}), tmp_path / "m.parquet", row_group_size=10_000)
    assert read(tmp_path, tmp_path / "m.parquet").column("uri").to_pylist() == uris


def test_hive_like_folders_in_a_path_add_no_columns(tmp_path: Path) -> None:
    folder = tmp_path / "dataset=fromfolder" / "version=9"
    folder.mkdir(parents=True)
    for name in ("m.parquet", "m.csv", "m.jsonl"):
        (row,) = read(tmp_path, write_rows(folder / name, [{"uri": "/a"}])).to_pylist()
        assert (row["dataset"], row["version"]) == ("images", None)


PROBLEMS: list[tuple[dict[str, Any], str | None]] = [
    ({"uri": None}, "uri is missing"),
    ({"uri": ""}, "uri is missing"),
    ({"image_id": ""}, "image_id is empty"),
    ({"dataset": ""}, "dataset is empty or a reserved name"),
    ({"dataset": "__HIVE_DEFAULT_PARTITION__"}, "dataset is empty or a reserved name"),
    ({"dataset": "d" * 201}, "dataset is longer than 200 bytes percent-encoded"),
    ({"dataset": "ü" * 34}, "dataset is longer than 200 bytes percent-encoded"),  # 6 bytes each, encoded
    ({"dataset": "d" * 200}, None),
    ({"dataset": "ü" * 33}, None),
    ({"offset": 1}, "offset or length is missing, negative or not a whole number"),
    ({"length": 1}, None),  # there is no column of offsets: a size, as Spark writes it
    ({"offset": None, "length": 1}, "offset or length is missing, negative or not a whole number"),
    ({"offset": -1, "length": 1}, "offset or length is missing, negative or not a whole number"),
    ({"offset": 1, "length": -1}, "offset or length is missing, negative or not a whole number"),
    ({"offset": 0, "length": 1}, None),
    ({}, None),
]


@pytest.mark.parametrize(("values", "problem"), PROBLEMS)
def test_a_row_that_cannot_be_processed_says_why(
    tmp_path: Path, values: dict[str, Any], problem: str | None
) -> None:
    path = write_rows(tmp_path / "m.parquet", [{"uri": "/a", "image_id": "a", **values}, {"uri": "/ok"}])
    assert read(tmp_path, path).column(PROBLEM).to_pylist() == [problem, None]


@pytest.mark.parametrize("values", [("abc", "xyz"), ("1.5", "2")])
def test_an_offset_or_length_that_is_no_number_makes_the_row_invalid(
    tmp_path: Path, values: tuple[str, str]
) -> None:
    (tmp_path / "m.csv").write_text(f"uri,offset,length\n/a,{values[0]},{values[1]}\n/b,1,2\n")
    assert read(tmp_path, tmp_path / "m.csv").column(PROBLEM).to_pylist()[0] is not None


def test_a_file_name_with_commas_and_quotes_survives_csv(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('uri\n"/a, b.jpg"\n"/say ""cheese"".jpg"\n/plain.jpg\n')
    uris = read(tmp_path, tmp_path / "m.csv").column("uri").to_pylist()
    assert uris == ["/a, b.jpg", '/say "cheese".jpg', "/plain.jpg"]


def test_a_manifest_of_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri\n")
    assert read(tmp_path, tmp_path / "m.csv").num_rows == 0


def test_a_manifest_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("nowhere.csv", "*.parquet"):
        said = refusal(tmp_path, tmp_path / name)
        assert f"{tmp_path}/{name}" in said
        assert "manifest.path" in said


def test_a_file_of_another_kind_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("a\n")
    assert "must end in .parquet, .pq, .csv, .tsv, .jsonl or .ndjson" in refusal(tmp_path, tmp_path / "m.txt")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"columns": ManifestColumns(uri="url")}, "no column 'url' (manifest.columns.uri). It has: uri, caption"),
        ({"columns": ManifestColumns(version="etag")}, "no column 'etag' (manifest.columns.version)"),
        ({"keep": ("title",)}, "no column 'title' (manifest.keep)"),
    ],
)
def test_a_missing_column_is_named_with_those_that_are_there(
    tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    path = write_rows(tmp_path / "m.csv", [{"uri": "/a", "caption": "x"}])
    assert named in refusal(tmp_path, path, **settings)


@pytest.mark.parametrize("name", ["m.parquet", "m.jsonl", "m.csv", "m.csv.gz"])
def test_a_malformed_manifest_is_one_sentence_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x00\xff{nope\n\x80" * 9)
    assert f"{tmp_path}/{name}" in refusal(tmp_path, tmp_path / name)


def test_offsets_that_pandas_made_floats_are_whole_numbers(tmp_path: Path) -> None:
    rows = pd.DataFrame({"uri": ["a", "b"], "offset": [512.0, None], "length": [100.0, None]})
    rows.to_parquet(tmp_path / "m.parquet")
    rows.to_csv(tmp_path / "m.csv", index=False)
    for name in ("m.parquet", "m.csv"):
        table = read(tmp_path, tmp_path / name)
        assert table.column("offset").to_pylist() == [512, None]
        assert table.column("length").to_pylist() == [100, None]
        assert table.column(PROBLEM).to_pylist() == [None, None]


def test_kept_columns_get_types_that_delta_has(tmp_path: Path) -> None:
    table = pa.table(
        {
            "uri": ["a"],
            "taken": pa.array([1], pa.timestamp("ns")),
            "size": pa.array([7], pa.uint32()),
            "box": pa.array([{"x": 1, "y": None}]),
            "tags": pa.array([["a", "b"]]),
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    (row,) = read(tmp_path, tmp_path / "m.parquet", keep=["taken", "size", "box", "tags"]).to_pylist()
    assert (row["taken"].year, row["size"]) == (1970, 7)
    assert (row["box"], row["tags"]) == ('{"x":1,"y":null}', '["a","b"]')
