"""The files below a folder or prefix: links, hidden ones, and what cannot be looked into."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import StorageConfig
from pipeline.images.fetch import Request
from pipeline.planning import walk
from pipeline.planning.listing_report import Listing, Tally
from pipeline.storage.filesystems import Storage
from tests.images.test_fetch import fetch
from tests.support import web
from tests.support.listings import deny
from tests.support.making import STORAGE, save_images


def walked(root: str | Path, storage: Storage = STORAGE) -> tuple[list[str], Listing]:
    """The names below the root, in their order, and what was tallied."""
    tally = Tally()
    fs, path = storage.filesystem(str(root))
    return [file.relative_path for file in walk.files(fs, path, tally)], tally.listing(0)


def test_links_to_files_and_folders_are_followed_also_out_of_the_lake(tmp_path: Path) -> None:
    save_images(tmp_path, ["real/a.jpg", "lake/own.jpg"])
    (tmp_path / "lake" / "linked.jpg").symlink_to("../real/a.jpg")
    (tmp_path / "lake" / "one").symlink_to("../real")
    (tmp_path / "lake" / "two").symlink_to(tmp_path / "real")
    names, tallied = walked(tmp_path / "lake")
    assert names == ["linked.jpg", "own.jpg", "one/a.jpg", "two/a.jpg"]
    assert tallied == Listing()


def test_a_link_to_a_folder_that_it_is_in_ends_there_and_is_counted(tmp_path: Path) -> None:
    save_images(tmp_path / "lake", ["a/1.jpg", "b/2.jpg"])
    (tmp_path / "lake" / "loop").symlink_to(".")
    (tmp_path / "lake" / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "lake" / "a" / "to b").symlink_to("../b")
    (tmp_path / "lake" / "b" / "to a").symlink_to("../a")
    names, tallied = walked(tmp_path / "lake")
    # `up` leads out of the lake, and back into it only by way of the lake itself.
    assert sorted(names) == ["a/1.jpg", "a/to b/2.jpg", "b/2.jpg", "b/to a/1.jpg"]
    assert tallied.left_out["in a loop of links"] > 2


def test_a_link_that_leads_nowhere_or_to_itself_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    tally = Tally()
    fs, root = STORAGE.filesystem(str(tmp_path))
    found = list(walk.files(fs, root, tally))
    assert [file.relative_path for file in found] == ["dangling.jpg", "self.jpg"]
    assert all(file.is_dangling and file.version() for file in found)


def test_a_file_that_is_deleted_while_it_is_listed_is_one_without_a_version(tmp_path: Path) -> None:
    save_images(tmp_path, ["a.jpg"])
    fs, root = STORAGE.filesystem(str(tmp_path))
    (file,) = walk.files(fs, root, Tally())
    (tmp_path / "a.jpg").unlink()
    assert file.version() is None


@pytest.mark.parametrize(("error", "named"), [(PermissionError(13, "no"), 1), (OSError(5, "lost"), None)])
def test_other_stores_are_passed_over_folder_by_folder_only_where_access_is_denied(
    error: OSError, named: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs, root = STORAGE.filesystem("memory://partly")
    fs.pipe_file("/partly/a/b/1.jpg", b"x")
    fs.pipe_file("/partly/c/2.jpg", b"x")
    ls = fs.ls

    def denied(path: str, **options: Any) -> Any:
        if path.endswith("/a/b"):
            raise error
        return ls(path, **options)

    monkeypatch.setattr(fs, "ls", denied)
    tally = Tally()
    if named is None:
        with pytest.raises(OSError, match="lost"):
            list(walk.files(fs, root, tally))
    else:
        assert [file.relative_path for file in walk.files(fs, root, tally)] == ["c/2.jpg"]
        assert len(tally.listing(0).unlisted) == named


def test_hidden_files_and_folders_are_left_out_file_by_file(tmp_path: Path) -> None:
    names = [".a.jpg", "._b.jpg", "__MACOSX/c.jpg", "@eaDir/d.jpg", "x/.y/z/e.jpg", "x/.y/f.jpg"]
    save_images(tmp_path, [*names, "thumbnails/ok.jpg", "x/ok.jpg", "..dots.jpg"])
    (tmp_path / ".link").symlink_to("x")
    found, tallied = walked(tmp_path)
    assert found == ["thumbnails/ok.jpg", "x/ok.jpg"]
    assert tallied.left_out == {"hidden": len(names) + 2}


def test_pipes_and_sockets_are_left_out_and_counted(tmp_path: Path) -> None:
    save_images(tmp_path, ["a.jpg"])
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "s.jpg"))  # a socket's path must be short
        names, tallied = walked(tmp_path)
    assert names == ["a.jpg"]
    assert tallied.left_out == {"neither file nor folder": 3}


def test_a_folder_that_may_not_be_read_is_named_and_the_others_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_images(tmp_path, ["a/1.jpg", "denied/2.jpg", "z/3.jpg", ".hidden/denied/4.jpg"])
    deny(monkeypatch, "denied")
    names, tallied = walked(tmp_path)
    assert names == ["a/1.jpg", "z/3.jpg"]
    assert tallied.unlisted == (f"Cannot open {tmp_path}/denied: permission denied.",)
    assert tallied.left_out == {"hidden": 1}


def test_other_stores_are_walked_folder_by_folder() -> None:
    fs, _ = STORAGE.filesystem("memory://")
    for name in ("b/2.jpg", "a/1.jpg", "0.jpg", "a/.hidden/3.jpg"):
        fs.pipe_file(f"/walked/{name}", b"x")
    names, tallied = walked("memory://walked")
    assert names == ["0.jpg", "a/1.jpg", "b/2.jpg"]
    assert tallied.left_out == {"hidden": 1}


def keys(prefix: str, *found: str, **sizes: int) -> tuple[list[tuple[str, str]], Listing]:
    """Paths and names below a prefix, of a page with these keys."""
    tally = Tally()
    page: list[dict[str, Any]] = [{"Key": key, "Size": sizes.get(key, 1), "ETag": '"e"'} for key in found]
    files = [(file.path, file.relative_path) for file in walk.files_of_page(page, "lake", prefix, tally)]
    return files, tally.listing(0)


def test_s3_keys_with_empty_names_keep_all_of_their_slashes() -> None:
    files, _ = keys("p/", "p/a//b.jpg", "p//c.jpg")
    assert files == [("lake/p/a//b.jpg", "a//b.jpg"), ("lake/p//c.jpg", "/c.jpg")]
    assert keys("", "//d.jpg")[0] == [("lake///d.jpg", "//d.jpg")]


def test_s3_keys_with_empty_names_are_asked_for_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with web.serving() as server:
        storage = Storage(StorageConfig(endpoint_url=server.url))
        names, _ = walked("s3://keys/a", storage)
        assert names == ["p//b.jpg", "/c.jpg", "ok.jpg"]
        requests = [Request(f"s3://keys/a/{name}") for name in names]
        assert fetch(requests, storage, max_bytes=100) == [f"/keys/a/{name}".encode() for name in names]


def test_s3_keys_are_hidden_by_what_is_below_the_prefix() -> None:
    files, tallied = keys(".p/", ".p/a.jpg", ".p/.git/b.jpg", ".p/x/._c.jpg", ".p/@eaDir/d.jpg", ".p/.")
    assert files == [("lake/.p/a.jpg", "a.jpg"), ("lake/.p/.", ".")]
    assert tallied.left_out == {"hidden": 3}


def test_empty_objects_that_stand_for_folders_are_no_files_and_others_that_end_with_a_slash_are_counted() -> None:
    files, tallied = keys("p/", "p/", "p/x/", "p/full/", **{"p/": 0, "p/x/": 0})
    assert files == []
    assert tallied.left_out == {"without ending": 1}
