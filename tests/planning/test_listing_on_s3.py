"""Prefixes of a real S3 server become manifests."""

import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import ManifestError, StorageError
from pipeline.images.fetch import Request
from pipeline.planning import listing
from pipeline.planning.listing_report import Listing
from pipeline.storage.filesystems import Storage
from tests.images.test_fetch import fetch
from tests.support import lakes, seaweed

pytestmark = pytest.mark.slow

BUCKET = "listed"


@pytest.fixture
def server(s3: seaweed.S3Server) -> seaweed.S3Server:
    """The server with a bucket, and the environment that leads to it."""
    s3.filesystem().makedirs(BUCKET, exist_ok=True)
    return s3


def test_the_members_of_a_shard_are_listed_and_read_by_range(server: seaweed.S3Server, tmp_path: Path) -> None:
    (image,) = lakes.folder_of_images(tmp_path, 1)
    with tarfile.open(tmp_path / "000.tar", "w") as shard:
        for name in ("a.png", "b.txt", "c.png"):
            shard.add(image, name)
    server.filesystem().put_file(str(tmp_path / "000.tar"), f"{BUCKET}/shards/train/000.tar")
    out = tmp_path / "m.parquet"
    found = listing.write_listing(f"s3://{BUCKET}/shards", str(out), Storage(), dataset="-", dataset_from=0)
    assert found == Listing(2, {".txt": 1})
    rows = pq.read_table(out).to_pylist()
    assert [row["image_id"] for row in rows] == [f"s3://{BUCKET}/shards/train/000.tar/{name}.png" for name in "ac"]
    requests = [Request(row["uri"], row["offset"], row["length"]) for row in rows]
    assert fetch(requests, Storage(), max_bytes=10**6) == [image.read_bytes()] * 2


def test_a_prefix_is_listed_page_by_page_and_the_rest_is_counted(
    server: seaweed.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.planning.walk.PAGE_KEYS", 2)
    images = ["a.jpg", "b/c.jpg", "z.JPG", "é & +.jpg"]
    for name in (*images, "b/c.txt", "b/.d.jpg"):
        server.filesystem().pipe_file(f"{BUCKET}/.paged/{name}", name.encode())
    out = tmp_path / "m.parquet"
    found = listing.write_listing(f"s3://{BUCKET}/.paged/", str(out), Storage(), dataset="-")
    assert found == Listing(4, {".txt": 1, "hidden": 1})
    uris = pq.read_table(out).column("uri").to_pylist()
    assert uris == [f"s3://{BUCKET}/.paged/{name}" for name in images]
    fetched = fetch([Request(uri) for uri in uris], Storage(), max_bytes=100)
    assert fetched == [name.encode() for name in images]


def test_a_bad_shard_on_s3_is_named_and_the_others_are_listed(server: seaweed.S3Server, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "good.tar", "w") as shard:
        shard.addfile(tarfile.TarInfo("a.jpg"))
    good = (tmp_path / "good.tar").read_bytes()
    for number, data in enumerate((b"", good, good[:300])):
        server.filesystem().pipe_file(f"{BUCKET}/bad/{number}.tar", data)
    found = listing.write_listing(f"s3://{BUCKET}/bad", str(tmp_path / "m.parquet"), Storage(), dataset="-")
    assert found.rows == 1
    assert found.unlisted == (
        f"The shard s3://{BUCKET}/bad/0.tar is damaged: it is empty.",
        f"The shard s3://{BUCKET}/bad/2.tar is damaged: it ends inside the header at byte 0.",
    )


@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [
        (f"s3://{BUCKET}/no-such-folder", "does not exist; check the path."),
        ("s3://no-such-bucket/x", "there is no such bucket"),
    ],
)
def test_a_prefix_that_is_not_there_is_one_sentence(
    server: seaweed.S3Server, tmp_path: Path, prefix: str, sentence: str
) -> None:
    with pytest.raises((ManifestError, StorageError), match=sentence):
        listing.write_listing(prefix, str(tmp_path / "m.parquet"), Storage(), dataset="-")
