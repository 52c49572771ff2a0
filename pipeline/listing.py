"""Make a manifest from a listing of a folder or a prefix, and of the tar shards in it. No image is opened."""

import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.errors import ManifestError
from pipeline.storage import Storage, failure

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".avif", ".jp2", ".j2k", ".jpx", ".mpo", ".ico", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
)
"""File names that a listing takes for images, compared in lower case."""
LISTING_ROWS = 65_536
"""Rows of a listing that are in memory at once, and in one row group."""

SHARD_SUFFIX = ".tar"
"""Shards whose members are addressed by their range of bytes; compressed ones cannot be."""

_LISTING = pa.schema(
    [
        (schema.IMAGE_ID, pa.string()),
        (schema.URI, pa.string()),
        (schema.DATASET, pa.string()),
        (schema.VERSION, pa.string()),
        (schema.OFFSET, pa.int64()),
        (schema.LENGTH, pa.int64()),
    ]
)


def write_listing(
    prefix: str,
    out: str,
    storage: Storage,
    *,
    dataset: str,
    dataset_from: int | None = None,
    suffixes: Iterable[str] = IMAGE_SUFFIXES,
) -> int:
    """List the images below a folder or prefix, or of one tar shard, into a Parquet manifest.

    Returns the rows written. Members of tar shards (WebDataset) are listed with their offset and length; their
    image_id is the shard's uri, a slash and the member's name. `dataset_from` picks the path component below the
    prefix that names the dataset: 0 is the first folder, -1 the innermost; an image without it goes to `dataset`.
    Raises: ManifestError if there is no image or a shard is damaged, StorageError.
    """
    rows = _list_images(prefix, storage, dataset, dataset_from, tuple(s.lower() for s in suffixes))
    first = next(rows, None)
    if first is None:
        raise ManifestError(f"There are no images below {prefix}.")
    count = 0
    with tempfile.NamedTemporaryFile(prefix="lakelens-listing-") as scratch:
        with pq.ParquetWriter(scratch, _LISTING, compression="zstd") as writer:
            rows = chain([first], rows)
            while some := list(islice(rows, LISTING_ROWS)):
                writer.write_table(pa.Table.from_pylist(some, schema=_LISTING))
                count += len(some)
        scratch.flush()
        storage.upload(Path(scratch.name), out)  # all of it or nothing
    return count


def _list_images(
    prefix: str, storage: Storage, dataset: str, dataset_from: int | None, suffixes: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    fs, root = storage.filesystem(prefix)
    root = root.rstrip("/")
    try:
        for info in _files(fs, root) if fs.isdir(root) else _shard(fs, root, prefix):
            *folders, name = info["name"].removeprefix(root).strip("/").split("/")
            uri = uri_of(fs, info["name"])
            row = {
                schema.IMAGE_ID: uri,
                schema.URI: uri,
                schema.DATASET: _component(folders, dataset_from) or dataset,
                schema.VERSION: _version(info),
            }
            if name.lower().endswith(suffixes):
                yield row
            elif info["name"].lower().endswith(SHARD_SUFFIX):
                yield from (row | member for member in _members(fs, info["name"], uri, suffixes))
    except ManifestError:
        raise
    except Exception as error:
        raise failure(error, prefix) from error


def _shard(fs: Any, path: str, prefix: str) -> list[dict[str, Any]]:
    """The one file that a prefix is, if that is a shard."""
    if not path.lower().endswith(SHARD_SUFFIX) or not fs.isfile(path):
        raise ManifestError(f"{prefix} is not a folder or prefix that can be listed, nor a {SHARD_SUFFIX} shard.")
    return [fs.info(path)]


def _members(fs: Any, path: str, uri: str, suffixes: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The images of a shard, in its order: only its headers are looked at."""
    try:
        with fs.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as shard:
            for member in shard:
                if member.isreg() and member.name.lower().endswith(suffixes):
                    yield {
                        schema.IMAGE_ID: f"{uri}/{member.name}",
                        schema.OFFSET: member.offset_data,
                        schema.LENGTH: member.size,
                    }
                shard.members = []  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
    except tarfile.TarError as error:
        raise ManifestError(f"The shard {uri} is damaged: {error}.") from error


def _files(fs: Any, root: str) -> Iterator[dict[str, Any]]:
    """Every file below a folder, in the order of the names; one folder's entries are in memory at a time.

    fsspec's own walk() leaves out folders below the first that it may not read.
    """
    folders = [root]
    while folders:
        folder = folders.pop()
        entries = sorted((e for e in fs.ls(folder, detail=True) if e["name"].rstrip("/") != folder), key=_name)
        yield from (entry for entry in entries if entry["type"] == "file")
        folders += [_name(entry) for entry in reversed(entries) if entry["type"] == "directory"]


def _name(entry: dict[str, Any]) -> str:
    return str(entry["name"]).rstrip("/")


def _component(names: list[str], index: int | None) -> str | None:
    if index is None or not -len(names) <= index < len(names):
        return None
    return names[index]


def _version(info: dict[str, Any]) -> str | None:
    """What tells a changed object: the store's etag, else modification time and size."""
    if info.get("ETag"):
        return str(info["ETag"]).strip('"')
    return f"{info['mtime']:.6f}-{info['size']}" if "mtime" in info else None


def uri_of(fs: Any, path: str) -> str:
    """A path inside a filesystem as the URI that leads there; local ones stay plain paths."""
    return path if "file" in (fs.protocol, *fs.protocol) else str(fs.unstrip_protocol(path))
