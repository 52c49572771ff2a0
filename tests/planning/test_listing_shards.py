"""The members of tar shards become rows of a manifest."""

import io
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import ManifestError
from pipeline.images.fetch import Request
from pipeline.planning.listing import write_listing
from pipeline.planning.listing_report import Listing
from tests.images.test_fetch import fetch
from tests.support.listings import listed, shard
from tests.support.making import STORAGE, save_images


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


def test_a_shard_can_be_asked_for_as_a_file(tmp_path: Path) -> None:
    shard(tmp_path / "lake" / "s.tar", {"1.jpg": b"1"})
    assert listed(tmp_path / "lake", suffixes=[".tar"])[0] == ["s.tar"]


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
