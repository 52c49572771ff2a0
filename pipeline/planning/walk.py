"""Every file below a folder or a prefix, one after the other. No file is opened.

Local folders and S3 have walks of their own, which are faster than fsspec's; other stores are walked with fsspec.
It does not know which files are images.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import ErrorCode
from pipeline.planning.listing_report import HIDDEN, LOOP, SPECIAL, Tally, display_name, is_hidden
from pipeline.storage import uris
from pipeline.storage.error_codes import classify
from pipeline.storage.filesystems import failure

PAGE_KEYS = 1000
"""Objects in one page of an S3 listing: the maximum of S3."""
_ABOUT_ONE_PATH = {ErrorCode.ACCESS_DENIED, ErrorCode.NOT_FOUND}
"""Errors that concern one folder or file, whenever it is asked for. Any other error may concern the whole
store."""


@dataclass(frozen=True, slots=True)
class File:
    """A file: its path in the filesystem, its path relative to the root, and a function that returns its version.

    The version changes when the file changes. An `is_dangling` file is a link that cannot be followed; its target
    may have been a folder.
    """

    path: str
    relative_path: str
    version: Callable[[], str | None]
    is_dangling: bool = False


def is_folder(fs: Any, root: str) -> bool:
    """Return whether the folder exists; on S3, whether a key begins with it. Raises: what the store raises."""
    if not _is_s3(fs):
        return bool(fs.isdir(root))
    bucket, key, _ = fs.split_path(root)
    return not key or bool(_page(fs, bucket, f"{key}/", MaxKeys=1).get("Contents"))


def files(fs: Any, root: str, tally: Tally) -> Iterator[File]:
    """Yield the files below a folder except hidden ones; tally hidden files and folders that cannot be read.

    The entries of one folder, or of one page of an S3 listing, are in memory at a time. Raises: what the store
    raises about the root, or about the store as a whole.
    """
    if _is_s3(fs):
        return _below_prefix(fs, root, tally)
    if isinstance(fs, LocalFileSystem):
        return _descend(fs, _Folder(root, above=(_identity(os.stat(root)),)), _scan_local, tally)
    return _descend(fs, _Folder(root), partial(_scan, fs), tally)


def single_file(fs: Any, path: str) -> File:
    """Return a file by its path. Raises: what the store raises."""
    info = fs.info(path)
    return File(path, path.rpartition("/")[2], partial(_version, info))


def concerns_one_path(fs: Any, error: BaseException) -> bool:
    """Return whether an error concerns one file or folder, so that the others can be listed without it."""
    return isinstance(error, OSError) and (isinstance(fs, LocalFileSystem) or classify(error) in _ABOUT_ONE_PATH)


class _Kind(Enum):
    FILE, DANGLING, FOLDER, SPECIAL, LOOP = range(5)


_Identity = tuple[int, int]
"""Device and inode."""


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder to read. `above` identifies it and the folders on the way to it."""

    path: str
    hidden: bool = False
    above: tuple[_Identity, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    path: str
    hidden: bool
    kind: _Kind
    version: Callable[[], str | None]
    identity: _Identity = (0, 0)


def _descend(fs: Any, root: _Folder, scan: Callable[[_Folder], Iterable[_Entry]], tally: Tally) -> Iterator[File]:
    """Yield a folder's files in the order of their names, then the files of its folders."""
    skip, folders = len(root.path.rstrip("/")) + 1, [root]
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(scan(folder), key=lambda entry: entry.name)
        except OSError as error:
            if folder is root or not concerns_one_path(fs, error):
                raise
            _tally_unreadable(folder, error, tally)
            continue
        below = []
        for entry in entries:
            if entry.kind is _Kind.FOLDER:
                below.append(_Folder(entry.path, entry.hidden, (*folder.above, entry.identity)))
            elif entry.hidden or entry.kind in _LEFT_OUT:
                tally.leave_out(HIDDEN if entry.hidden else _LEFT_OUT[entry.kind])
            else:
                yield File(entry.path, entry.path[skip:], entry.version, entry.kind is _Kind.DANGLING)
        folders += reversed(below)


_LEFT_OUT = {_Kind.SPECIAL: SPECIAL, _Kind.LOOP: LOOP}


def _tally_unreadable(folder: _Folder, error: OSError, tally: Tally) -> None:
    if folder.hidden:
        tally.leave_out(HIDDEN)
    else:
        tally.add_unlisted(str(failure(error, display_name(folder.path))))


def _scan_local(folder: _Folder) -> Iterator[_Entry]:
    """Yield a local folder's entries. Links are followed unless they are hidden."""
    with os.scandir(folder.path) as found:
        for entry in found:
            hidden = folder.hidden or is_hidden(entry.name)
            follow = not hidden
            kind, identity = _Kind.FILE, (0, 0)
            try:
                if entry.is_dir(follow_symlinks=follow):
                    identity = _identity(entry.stat(follow_symlinks=follow))
                    kind = _Kind.LOOP if identity in folder.above else _Kind.FOLDER
                elif not entry.is_file(follow_symlinks=follow):
                    entry.stat(follow_symlinks=follow)  # raises for a dangling link
                    kind = _Kind.SPECIAL
            except OSError:
                kind = _Kind.DANGLING
            yield _Entry(entry.name, entry.path, hidden, kind, partial(_version_of, entry), identity)


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino


def _version_of(entry: "os.DirEntry[str]") -> str | None:
    """Return the version of a file. A dangling link has its own, which changes when its target appears."""
    for follow in (True, False):
        with suppress(OSError):
            found = entry.stat(follow_symlinks=follow)
            return _stamp(found.st_mtime, found.st_size)
    return None  # the file has just been deleted


def _scan(fs: Any, folder: _Folder) -> Iterator[_Entry]:
    """Yield a folder's entries on any other store. fsspec's walk() skips folders that it may not read."""
    for info in fs.ls(folder.path, detail=True):
        path = info["name"].rstrip("/")
        if path != folder.path:
            kind = {"file": _Kind.FILE, "directory": _Kind.FOLDER}.get(info["type"], _Kind.SPECIAL)
            name = path.rpartition("/")[2]
            hidden = folder.hidden or is_hidden(name)
            yield _Entry(name, path, hidden, kind, partial(_version, info))


def _is_s3(fs: Any) -> bool:
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return any(name in uris.S3 for name in protocols)


def _below_prefix(fs: Any, root: str, tally: Tally) -> Iterator[File]:
    """Yield the objects below a prefix in the order of their keys.

    `ls` is not used: folder by folder, it loses keys with empty names, such as `a//b.jpg`.
    """
    bucket, key, _ = fs.split_path(root)
    prefix = f"{key}/" if key else ""
    more: dict[str, str] = {}
    while True:
        page = _page(fs, bucket, prefix, **more)
        yield from files_of_page(page.get("Contents", []), bucket, prefix, tally)
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def files_of_page(contents: Iterable[dict[str, Any]], bucket: str, prefix: str, tally: Tally) -> Iterator[File]:
    """Yield the files of a page of an S3 listing by their exact keys, without empty objects that mark folders."""
    for info in contents:
        below = info["Key"].removeprefix(prefix)
        if any(map(is_hidden, below.split("/"))):
            tally.leave_out(HIDDEN)
        elif not below.endswith("/") and below:
            yield File(f"{bucket}/{info['Key']}", below, partial(_version, info))
        elif info["Size"]:
            tally.leave_out_file("")


def _page(fs: Any, bucket: str, prefix: str, **options: Any) -> dict[str, Any]:
    asked = {"MaxKeys": PAGE_KEYS, **options, **fs.req_kw}
    page: dict[str, Any] = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **asked)
    return page


def _version(info: dict[str, Any]) -> str | None:
    """Return the version of an object: the store's etag, otherwise its modification time and size."""
    if info.get("ETag"):
        return str(info["ETag"]).strip('"')
    return _stamp(info["mtime"], info["size"]) if "mtime" in info else None


def _stamp(mtime_s: float, size: int) -> str:
    return f"{mtime_s:.6f}-{size}"
