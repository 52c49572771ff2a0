"""A folder of images becomes a manifest."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

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
from tests.support.making import STORAGE, save_images
from tests.support.manifests import refusal

NAMES = ["top.jpg", "a/one.png", "a/deep/two.JPEG", "b c/three.webp"]


def deny(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Folders of that name may not be read, even by root."""
    scandir = os.scandir

    def denied(path: str) -> Any:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)


def listing(folder: Path, out: Path, **options: Any) -> dict[str, dict[str, Any]]:
    """The rows of a listing, by the relative name of the image."""
    found = write_listing(str(folder), str(out), STORAGE, **{"dataset": "images", **options})
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == found.rows
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
    assert write_listing(str(tmp_path / "lake"), str(out), STORAGE, dataset="-", dataset_from=0) == Listing(
        5, {".json": 1}
    )
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
    assert write_listing(str(path), str(out), STORAGE, dataset="shards") == Listing(5)
    rows = pq.read_table(out).to_pylist()
    requests = [Request(row["uri"], row["offset"], row["length"]) for row in rows]
    assert fetch(requests, STORAGE, max_bytes=100) == [bytes([i]) * (i + 1) for i in range(5)]


def test_where_nothing_can_be_listed_a_damaged_shard_is_the_reason(tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"this is no tar file" * 100)
    with pytest.raises(ManifestError, match=r"^The shard .*bad\.tar is damaged: .*\. There are no other images"):
        write_listing(str(tmp_path), str(tmp_path / "m.parquet"), STORAGE, dataset="images")


def listed(folder: Path, **options: Any) -> tuple[list[str], Listing]:
    """The listed image_ids, without the folder, and what the listing says."""
    out = folder.parent / "listed.parquet"
    found = write_listing(str(folder), str(out), STORAGE, **{"dataset": "images", **options})
    ids = pq.read_table(out).column("image_id").to_pylist()
    return [image_id.removeprefix(f"{folder}/") for image_id in ids], found


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


def test_a_shard_can_be_asked_for_as_a_file(tmp_path: Path) -> None:
    shard(tmp_path / "lake" / "s.tar", {"1.jpg": b"1"})
    assert listed(tmp_path / "lake", suffixes=[".tar"])[0] == ["s.tar"]


def test_a_name_that_is_not_utf_8_is_named_and_costs_no_other_image(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    save_images(lake, ["good.jpg", os.fsdecode(b"caf\xe9.jpg"), os.fsdecode(b"no image\xe9.txt")])
    names, found = listed(lake)
    assert names == ["good.jpg"]
    assert found.left_out == {".txt": 1}
    assert found.unlisted == (f"{lake}/caf\\xe9.jpg is not listed: its name is not UTF-8; rename it.",)


def test_bad_shards_are_named_and_the_others_are_listed(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    lake.mkdir()
    (lake / "0.tar").touch()
    whole = shard(lake / "1.tar", {"a.jpg": b"a", "b.jpg": b"b"}).read_bytes()
    (lake / "2.tar").write_bytes(whole[:1200])
    shard(lake / "3.tar", {"c.jpg": b"c"})
    (lake / "4.tar").symlink_to("nowhere")
    names, found = listed(lake)
    assert names == ["1.tar/a.jpg", "1.tar/b.jpg", "2.tar/a.jpg", "3.tar/c.jpg"]
    assert found.unlisted == (
        f"The shard {lake}/0.tar is damaged: it is empty.",
        f"The shard {lake}/2.tar is damaged: it ends inside the header at byte 1,024. "
        "The images before that are listed: 1.",
        f"Cannot open {lake}/4.tar: no such file or directory.",
    )


@pytest.mark.parametrize("name", ["s.tar.gz", "s.TGZ", "s.tar.zst", "s.tar.bz2", "s.tar.xz"])
def test_a_compressed_shard_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    save_images(tmp_path / "lake", ["a.jpg", name])
    names, found = listed(tmp_path / "lake")
    assert names == ["a.jpg"]
    assert len(found.unlisted) == 1
    assert name in found.unlisted[0]
    assert "unpack it" in found.unlisted[0]
    with pytest.raises(ManifestError, match=f"{name} is a compressed archive: .* unpack it"):
        listed(tmp_path / "lake" / name)


def test_members_that_a_later_one_replaces_are_counted(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    with tarfile.open(tmp_path / "lake" / "s.tar", "w") as file:
        for name, data in (
            ("a.jpg", b"old"),
            ("._a.jpg", b""),
            ("b.jpg", b"b"),
            ("a.jpg", b"new"),
            ("._a.jpg", b""),
        ):
            header = tarfile.TarInfo(name)
            header.size = len(data)
            file.addfile(header, io.BytesIO(data))
    names, found = listed(tmp_path / "lake")
    assert names == ["s.tar/b.jpg", "s.tar/a.jpg"]
    assert found.superseded == 1
    assert found.left_out_line == "left out: 2 hidden; superseded in their shards: 1"


def test_a_link_in_a_shard_that_leads_nowhere_is_named_if_it_is_an_images(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    with tarfile.open(tmp_path / "lake" / "s.tar", "w") as file:
        for name in ("a.jpg", "a.txt"):
            header = tarfile.TarInfo(name)
            header.type, header.linkname = tarfile.SYMTYPE, "../outside.jpg"
            file.addfile(header)
        file.addfile(tarfile.TarInfo("b.jpg"))
        fifo = tarfile.TarInfo("pipe.jpg")
        fifo.type = tarfile.FIFOTYPE
        file.addfile(fifo)
    names, found = listed(tmp_path / "lake")
    assert names == ["s.tar/b.jpg"]
    assert found.left_out == {".txt": 1, "neither file nor folder": 1}
    assert found.unlisted == (
        f"a.jpg in the shard {tmp_path}/lake/s.tar is not listed: it is a link to ../outside.jpg, "
        "which is not a file in the shard.",
    )


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
