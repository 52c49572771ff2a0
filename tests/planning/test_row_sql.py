"""The ids and places of rows, however a manifest writes them."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.config import ManifestColumns
from pipeline.schema import PROBLEM
from pipeline.storage import data_uris
from tests.support.manifests import parquet, read, read_with_notes

IDS = {
    "ints": ([7, 8], ["7", "8"]),
    "floats": ([7.0, None, 1.5], ["7", "/1", "1.5"]),
    "nan": ([float("nan"), 2.0**53], ["/0", "9007199254740992.0"]),
    "texts": (["7.0", "8"], ["7.0", "8"]),
}


@pytest.mark.parametrize("kind", IDS)
def test_whole_numbers_that_became_floats_are_the_text_of_their_integers(tmp_path: Path, kind: str) -> None:
    values, expected = IDS[kind]
    path = parquet(tmp_path, {"uri": [f"/{n}" for n in range(len(values))], "image_id": values})
    assert read(tmp_path, path).column("image_id").to_pylist() == expected


def test_an_output_of_the_older_format_keeps_its_ids(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"uri": ["/a", "/b"], "image_id": [7.0, None], "offset": [1, 1], "length": [2, 2]})
    rows, _ = read_with_notes(tmp_path, path, id_format=1)
    assert rows.column("image_id").to_pylist() == ["7.0", "/b"]


def test_files_of_one_set_may_store_ids_in_different_ways(tmp_path: Path) -> None:
    for number, values in enumerate(([1, 2], [3.0, None], ["4", "x"])):
        parquet(tmp_path, {"uri": [f"/{number}a", f"/{number}b"], "image_id": values}, f"{number}.parquet")
    found = read(tmp_path, tmp_path / "*.parquet").column("image_id").to_pylist()
    assert found == ["1", "2", "3", "/1b", "4", "x"]


def test_byte_ranges_of_one_object_are_different_images(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"uri": ["/s.tar"] * 3, "offset": [512, 2048, None], "length": [100, 100, None]})
    assert read(tmp_path, path).column("image_id").to_pylist() == [
        "/s.tar#bytes=512-611",
        "/s.tar#bytes=2048-2147",
        "/s.tar",
    ]


TYPES = [
    "image/png;base64",
    ";base64",
    "",
    "IMAGE/JPEG",
    " image/svg+xml ;charset=utf-8",
    "nonsense;base64",
    "a/b/c",
    "/x",
]


def test_the_id_of_an_image_in_a_data_uri_is_what_its_uri_becomes(tmp_path: Path) -> None:
    uris = [f"{scheme}:{kind},{'A' * 9999}" for kind in TYPES for scheme in ("data", "DATA")]
    ids = read(tmp_path, parquet(tmp_path, {"uri": uris})).column("image_id").to_pylist()
    assert ids == [data_uris.hashed(uri) for uri in uris]
    assert all(len(found) < 120 for found in ids)


def test_uris_that_begin_with_their_scheme_are_not_relative(tmp_path: Path) -> None:
    absolute = ["file:/x", "file:///my%20x", "data:,x", "DATA:image/png;base64,AA", "s3://b/k", "/x"]
    relative = ["data:no comma", "filed:/x", "datum:,x", "x"]
    found = read(tmp_path, parquet(tmp_path, {"uri": [*absolute, *relative]})).column("uri").to_pylist()
    assert found == [*absolute, *(f"{tmp_path}/{uri}" for uri in relative)]


def test_a_size_beside_images_is_no_range(tmp_path: Path) -> None:
    columns = {"path": ["/1.jpg"], "modificationTime": ["2026-01-01"], "length": [3], "content": [b"abc"]}
    named = ManifestColumns(uri="path", bytes="content", version="modificationTime")
    (row,) = read(tmp_path, parquet(tmp_path, columns), columns=named).to_pylist()
    assert (row["image_id"], row["length"], row[PROBLEM]) == ("/1.jpg", None, None)


def test_in_an_output_of_the_older_format_letter_case_counts_for_ids(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"uri": ["/a"], "Image_ID": ["x"], "Dataset": ["d"], "Version": ["v"]})
    (row,) = read_with_notes(tmp_path, path, id_format=1)[0].to_pylist()
    assert (row["image_id"], row["dataset"], row["version"]) == ("/a", "images", None)


def test_a_missing_number_in_json_is_no_id(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"uri": "/a", "image_id": NaN}\n{"uri": "/b", "image_id": NaN}\n')
    assert read(tmp_path, tmp_path / "m.jsonl").column("image_id").to_pylist() == ["/a", "/b"]


def test_an_id_may_be_a_uuid(tmp_path: Path) -> None:
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(range(16))], pa.binary(16)))
    (row,) = read(tmp_path, parquet(tmp_path, {"uri": ["/a"], "image_id": ids})).to_pylist()
    assert row["image_id"] == "00010203-0405-0607-0809-0a0b0c0d0e0f"


def test_ranges_of_a_data_uri_are_different_images(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"uri": ["data:,ab"] * 2, "offset": [0, 1], "length": [1, 1]})
    assert len(set(read(tmp_path, path).column("image_id").to_pylist())) == 2
