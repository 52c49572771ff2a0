"""A folder of images becomes a manifest."""

import os
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import ManifestConfig
from pipeline.errors import ErrorCode, ManifestError, RowError, StorageError
from pipeline.images.fetch import Request
from pipeline.planning import manifest
from pipeline.planning.listing import EVERY_SUFFIX, write_listing
from pipeline.planning.listing_report import Listing
from pipeline.schema import ORDINAL, PROBLEM
from tests.images.test_fetch import fetch
from tests.support.listings import deny, listed, listing, shard
from tests.support.making import STORAGE, save_images
from tests.support.manifests import refusal

NAMES = ["top.jpg", "a/one.png", "a/deep/two.JPEG", "b c/three.webp"]


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
    monkeypatch.setattr("pipeline.planning.listing.LISTING_ROWS", 3)
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
        with pytest.raises(ManifestError, match=r"(is a file|does not exist)"):
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
    both = [str(tmp_path / "lake" / name) for name in ("a", "b")]
    assert write_listing(both, str(out), STORAGE, dataset="images").rows == 2
    before = out.read_bytes()
    deny(monkeypatch, "b")
    with pytest.raises(StorageError, match=r"^Cannot open .*lake/b: permission denied\.$"):
        write_listing(both, str(out), STORAGE, dataset="images")
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lake", "m.parquet"]


def test_what_is_not_listed_is_counted_by_its_ending_in_files_and_in_shards(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    save_images(lake, ["a.jpg", "b.SVG", "c.svg", "notes.txt", "LICENSE", "trailing.", "x/._a.jpg", ".env"])
    shard(lake / "s.tar", {"1.jpg": b"1", "1.cls": b"7", "2.svg": b"2", "__MACOSX/2.jpg": b"2", "./3.jpg": b"3"})
    names, found = listed(lake)
    assert names == ["a.jpg", "s.tar/1.jpg", "s.tar/./3.jpg"]
    assert found.left_out == {".svg": 3, "hidden": 3, "without ending": 2, ".txt": 1, ".cls": 1}
    assert found.left_out_line == "left out: 3 .svg, 1 .cls, 1 .txt, 2 without ending, 3 hidden"
    assert not found.unlisted


def test_all_files_are_listed_if_asked_for_but_for_hidden_ones(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    save_images(lake, ["a.jpg", "b.svg", "LICENSE", ".DS_Store"])
    shard(lake / "s.tar", {"1.cls": b"7", ".hidden": b""})
    names, found = listed(lake, suffixes=EVERY_SUFFIX)
    assert names == ["LICENSE", "a.jpg", "b.svg", "s.tar/1.cls"]
    assert found.left_out == {"hidden": 2}


def test_a_name_that_is_not_utf_8_is_named_and_costs_no_other_image(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    save_images(lake, ["good.jpg", os.fsdecode(b"caf\xe9.jpg"), os.fsdecode(b"no image\xe9.txt")])
    names, found = listed(lake)
    assert names == ["good.jpg"]
    assert found.left_out == {".txt": 1}
    assert found.unlisted == (f"{lake}/caf\\xe9.jpg is not listed: its name is not UTF-8; rename it.",)


def test_several_folders_are_listed_into_one_manifest(tmp_path: Path) -> None:
    save_images(tmp_path, ["one/a.jpg", "one/a.txt", "two/b.jpg", "two/b.txt"])
    out = tmp_path / "m.parquet"
    both = [f"{tmp_path}/two", f"{tmp_path}/one"]
    assert write_listing(both, str(out), STORAGE, dataset="images") == Listing(2, {".txt": 2})
    assert pq.read_table(out).column("uri").to_pylist() == [f"{tmp_path}/two/b.jpg", f"{tmp_path}/one/a.jpg"]


def test_the_folder_that_was_named_may_be_hidden_itself(tmp_path: Path) -> None:
    save_images(tmp_path / ".cache" / "lake", ["a.jpg"])
    assert listed(tmp_path / ".cache" / "lake")[0] == ["a.jpg"]


def test_a_dangling_link_is_a_row_that_ends_as_not_found(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    lake.mkdir()
    (lake / "a.jpg").symlink_to("gone.jpg")
    before = listing(lake, tmp_path / "m.parquet")["a.jpg"]
    (failed,) = fetch([Request(before["uri"])], STORAGE, max_bytes=100)
    assert isinstance(failed, RowError)
    assert failed.code == ErrorCode.NOT_FOUND
    (lake / "gone.jpg").write_bytes(b"here again")
    assert listing(lake, tmp_path / "m.parquet")["a.jpg"]["version"] != before["version"]


def test_a_dangling_link_that_may_lead_to_a_folder_is_named(tmp_path: Path) -> None:
    save_images(tmp_path / "lake", ["a.jpg"])
    (tmp_path / "lake" / "train").symlink_to("/not/mounted/train")
    (tmp_path / "lake" / "notes.txt").symlink_to("gone.txt")
    _, found = listed(tmp_path / "lake")
    assert (found.rows, found.left_out, found.superseded) == (1, {".txt": 1}, 0)
    (sentence,) = found.unlisted
    assert sentence.startswith(f"{tmp_path}/lake/train is a link ")


def test_a_folder_in_the_config_tells_what_it_left_out(tmp_path: Path) -> None:
    save_images(tmp_path, ["one/a.jpg", "one/a.txt", "two/b.jpg", "two/.b.jpg"])
    config = ManifestConfig(path=(str(tmp_path / "two"), str(tmp_path / "one")))
    (tmp_path / "scratch").mkdir()
    with duckdb.connect() as connection:
        found = manifest.create_input(connection, config, STORAGE, tmp_path / "scratch", id_format=2).listing
    assert found == Listing(2, {".txt": 1, "hidden": 1})


def test_a_prefix_that_does_not_exist_is_told_from_one_that_is_a_file(tmp_path: Path) -> None:
    save_images(tmp_path, ["a.jpg"])
    for name, said in (("nowhere", "does not exist"), ("a.jpg", "is a file")):
        with pytest.raises(ManifestError, match=f"{tmp_path}/{name} {said}"):
            write_listing(str(tmp_path / name), str(tmp_path / "out.parquet"), STORAGE, dataset="images")


def test_a_folder_of_manifest_files_is_refused_with_the_glob_that_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "m.parquet"
    folder.mkdir()
    pq.write_table(pa.table({"uri": ["/a"]}), folder / "part-0.parquet")
    said = refusal(tmp_path, folder)
    assert f"{folder}/*.parquet" in said
