"""A folder of images becomes a manifest."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from pipeline import manifest
from pipeline.config import ManifestConfig
from pipeline.errors import ManifestError, StorageError
from pipeline.fetch import Request
from pipeline.listing import write_listing
from pipeline.schema import ORDINAL, PROBLEM
from tests.making import STORAGE, save_images
from tests.test_fetch import fetch

NAMES = ["top.jpg", "a/one.png", "a/deep/two.JPEG", "b c/three.webp"]


def listing(folder: Path, out: Path, **options: Any) -> dict[str, dict[str, Any]]:
    """The rows of a listing, by the relative name of the image."""
    count = write_listing(str(folder), str(out), STORAGE, **{"dataset": "images", **options})
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == count
    return {row["uri"].removeprefix(f"{folder}/"): row for row in rows}


def test_every_image_below_a_folder_is_listed_once_with_its_absolute_path(tmp_path: Path) -> None:
    save_images(tmp_path / "lake", NAMES)
    assert sorted(listing(tmp_path / "lake", tmp_path / "m.parquet")) == sorted(NAMES)


@pytest.mark.parametrize(
    ("dataset_from", "datasets"),
    [
        (None, ["rest", "rest", "rest", "rest"]),
        (0, ["rest", "a", "a", "b c"]),
        (1, ["rest", "rest", "deep", "rest"]),
        (-1, ["rest", "a", "deep", "b c"]),
        (-2, ["rest", "rest", "a", "rest"]),
        (5, ["rest", "rest", "rest", "rest"]),
    ],
)
def test_a_path_component_can_name_the_dataset(
    tmp_path: Path, dataset_from: int | None, datasets: list[str]
) -> None:
    save_images(tmp_path / "lake", NAMES)
    rows = listing(tmp_path / "lake", tmp_path / "m.parquet", dataset="rest", dataset_from=dataset_from)
    assert [rows[name]["dataset"] for name in NAMES] == datasets


def test_only_images_are_listed_unless_other_endings_are_asked_for(tmp_path: Path) -> None:
    save_images(tmp_path / "lake", ["a.jpg", "b.txt", "c.jpg.bak", "noending", "d.TIF"])
    assert set(listing(tmp_path / "lake", tmp_path / "m.parquet")) == {"a.jpg", "d.TIF"}
    assert set(listing(tmp_path / "lake", tmp_path / "n.parquet", suffixes=[".TXT"])) == {"b.txt"}


def test_a_listing_is_the_same_whatever_order_the_folder_has(tmp_path: Path) -> None:
    save_images(tmp_path / "x", ["b/2.jpg", "a/1.jpg", "c.jpg", "a/0.jpg"])
    save_images(tmp_path / "y", ["c.jpg", "a/0.jpg", "a/1.jpg", "b/2.jpg"])
    assert list(listing(tmp_path / "x", tmp_path / "m")) == list(listing(tmp_path / "y", tmp_path / "n"))


def test_a_changed_file_has_another_version_and_an_unchanged_one_the_same(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    save_images(lake, ["a.jpg", "b.jpg", "c.jpg"])
    before = listing(lake, tmp_path / "m.parquet")
    (lake / "a.jpg").write_bytes(b"longer than it was before" * 99)
    os.utime(lake / "b.jpg", (1, 1))
    after = listing(lake, tmp_path / "m.parquet")
    changed = {name for name in after if after[name]["version"] != before[name]["version"]}
    assert changed == {"a.jpg", "b.jpg"}


def test_more_images_than_one_row_group_are_all_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.listing.LISTING_ROWS", 3)
    save_images(tmp_path / "lake", [f"{i}.jpg" for i in range(7)])
    assert len(listing(tmp_path / "lake", tmp_path / "m.parquet")) == 7
    assert pq.ParquetFile(tmp_path / "m.parquet").num_row_groups == 3


@pytest.mark.parametrize("names", [[], ["readme.txt"]])
def test_a_folder_without_images_is_one_sentence_and_no_file(tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "lake").mkdir()
    save_images(tmp_path / "lake", names)
    with pytest.raises(ManifestError, match=f"There are no images below {tmp_path}/lake"):
        listing(tmp_path / "lake", tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()


def test_a_prefix_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.jpg").write_bytes(b"x")
    for name in ("file.jpg", "nowhere"):
        with pytest.raises(ManifestError, match="is not a folder or prefix that can be listed"):
            listing(tmp_path / name, tmp_path / "m.parquet")


def test_a_folder_in_the_config_is_a_manifest_of_its_images(tmp_path: Path) -> None:
    save_images(tmp_path / "lake", NAMES)
    config = ManifestConfig(path=(str(tmp_path / "lake"),), dataset="photos")
    with duckdb.connect() as connection:
        manifest.create_input(connection, config, STORAGE, tmp_path, id_format=2)
        rows = connection.sql("FROM input").to_arrow_table().to_pylist()
    assert {row["uri"] for row in rows} == {f"{tmp_path}/lake/{name}" for name in NAMES}
    assert {row["dataset"] for row in rows} == {"photos"}
    assert all(row[PROBLEM] is None and row["version"] for row in rows)


def test_two_folders_in_the_config_are_both_listed(tmp_path: Path) -> None:
    save_images(tmp_path, ["one/a.jpg", "two/b.jpg"])
    config = ManifestConfig(path=(str(tmp_path / "two"), str(tmp_path / "one")))
    with duckdb.connect() as connection:
        manifest.create_input(connection, config, STORAGE, tmp_path, id_format=2)
        uris = [uri for (uri,) in connection.sql(f"SELECT uri FROM input ORDER BY {ORDINAL}").fetchall()]
    assert uris == [f"{tmp_path}/two/b.jpg", f"{tmp_path}/one/a.jpg"]


def test_a_listing_that_fails_leaves_the_manifest_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / "lake" / name).mkdir(parents=True)
        (tmp_path / "lake" / name / "1.jpg").touch()
    out = tmp_path / "m.parquet"
    assert write_listing(str(tmp_path / "lake"), str(out), STORAGE, dataset="images") == 2
    before = out.read_bytes()
    scandir = os.scandir

    def denied(path: str) -> Any:
        if str(path).rstrip("/").endswith("b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(StorageError, match=r"^Cannot open .*lake: permission denied\.$"):
        write_listing(str(tmp_path / "lake"), str(out), STORAGE, dataset="images")
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lake", "m.parquet"]


def shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            file.addfile(header, io.BytesIO(data))
    return path


def test_the_images_of_a_tar_shard_are_listed_by_their_bytes(tmp_path: Path) -> None:
    members = {
        "a/1.jpg": b"first",
        "a/1.json": b"{}",
        "2.PNG": b"second one",
        "empty.jpg": b"",
        "n" * 150 + ".jpg": b"x",
    }
    path = shard(tmp_path / "lake" / "train" / "000.tar", members)
    (tmp_path / "lake" / "train" / "alone.jpg").write_bytes(b"alone")
    out = tmp_path / "m.parquet"
    assert write_listing(str(tmp_path / "lake"), str(out), STORAGE, dataset="-", dataset_from=0) == 5
    rows = {row["image_id"]: row for row in pq.read_table(out).to_pylist()}
    data = path.read_bytes()
    for name in ("a/1.jpg", "2.PNG", "empty.jpg", "n" * 150 + ".jpg"):
        row = rows[f"{path}/{name}"]
        assert (row["uri"], row["dataset"]) == (str(path), "train")
        assert data[row["offset"] : row["offset"] + row["length"]] == members[name]
    alone = rows[str(path.with_name("alone.jpg"))]
    assert (alone["offset"], alone["length"]) == (None, None)


def test_a_shard_can_be_listed_alone_and_read_as_a_manifest(tmp_path: Path) -> None:
    path = shard(tmp_path / "one.tar", {f"{i}.jpg": bytes([i]) * (i + 1) for i in range(5)})
    out = tmp_path / "m.parquet"
    assert write_listing(str(path), str(out), STORAGE, dataset="shards") == 5
    rows = pq.read_table(out).to_pylist()
    requests = [Request(row["uri"], row["offset"], row["length"]) for row in rows]
    assert fetch(requests, STORAGE, max_bytes=100) == [bytes([i]) * (i + 1) for i in range(5)]


def test_a_damaged_shard_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"this is no tar file" * 100)
    with pytest.raises(ManifestError, match=r"^The shard .*bad\.tar is damaged: .*\.$"):
        write_listing(str(tmp_path), str(tmp_path / "m.parquet"), STORAGE, dataset="images")
