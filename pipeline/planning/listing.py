"""Make a manifest from a listing of folders or prefixes, and of the tar shards in them. No image is opened."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.errors import LakeLensError, ManifestError
from pipeline.planning import shards, walk
from pipeline.planning.listing_report import (
    HIDDEN,
    NO_ENDING,
    SPECIAL,
    Listing,
    Tally,
    display_name,
    ending,
    is_hidden,
    is_text,
)
from pipeline.storage.filesystems import Storage, failure

HEIF_SUFFIXES = (".heic", ".heif", ".hif") if find_spec("pillow_heif") else ()
"""Image suffixes of the extra `heif`; empty if it is not installed."""
IMAGE_SUFFIXES = (
    *HEIF_SUFFIXES,
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".avif", ".jp2", ".j2k", ".jpx", ".mpo", ".ico", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
)
"""Suffixes of files that a listing takes for images, compared in lower case."""
EVERY_SUFFIX = ("",)
"""Takes files with any suffix. Shards are still read, and hidden files left out."""
LISTING_ROWS = 65_536
"""Rows of a listing that are in memory at once, and in one row group."""

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
    prefixes: str | Sequence[str],
    out: str,
    storage: Storage,
    *,
    dataset: str,
    dataset_from: int | None = None,
    suffixes: Iterable[str] = IMAGE_SUFFIXES,
) -> Listing:
    """List the images below folders or prefixes, or in single tar shards, into a Parquet manifest.

    Return how many rows were written, and what was left out. Links are followed; hidden files are left out.
    Members of tar shards (WebDataset) have their offset and length, and an image_id of the shard's uri, a slash
    and the member's name. A damaged shard is listed as far as it can be read. `dataset_from` is the path component
    below the prefix that names the dataset: 0 is the first folder, -1 the innermost. Images without it go to
    `dataset`. Raises: ManifestError if there is no image, StorageError.
    """
    prefixes = [prefixes] if isinstance(prefixes, str) else prefixes
    tally, suffix_filter = Tally(), _SuffixFilter(suffixes)
    rows = chain.from_iterable(
        _PrefixLister(prefix, storage, tally, suffix_filter).rows(dataset, dataset_from) for prefix in prefixes
    )
    first = next(rows, None)
    if first is None:
        raise ManifestError(_nothing(prefixes, tally.listing(0)))
    count = 0
    with tempfile.NamedTemporaryFile(prefix="lakelens-listing-") as scratch:
        with pq.ParquetWriter(scratch, _LISTING, compression="zstd") as writer:
            rows = chain([first], rows)
            while some := list(islice(rows, LISTING_ROWS)):
                writer.write_table(pa.Table.from_pylist(some, schema=_LISTING))
                count += len(some)
        scratch.flush()
        storage.upload(Path(scratch.name), out)  # the whole manifest or nothing
    return tally.listing(count)


def _nothing(prefixes: Sequence[str], listing: Listing) -> str:
    where = ", ".join(map(display_name, prefixes))
    left_out = f" ({listing.left_out_line})" if listing.left_out_line else ""
    if not listing.unlisted:
        return f"There are no images below {where}{left_out}.{_manifest_hint(prefixes[0], listing)}"
    more = len(listing.unlisted) - 1 + listing.unlisted_more
    others = f" {more:,} more could not be listed." if more else ""
    return f"{listing.unlisted[0]}{others} There are no other images below {where}{left_out}."


def _manifest_hint(prefix: str, listing: Listing) -> str:
    """Return how to read the files of a folder as manifests, if there are some."""
    suffix = next((kind for kind in (".parquet", ".csv", ".jsonl") if kind in listing.left_out), None)
    if suffix is None:
        return ""
    pattern = display_name(f"{prefix.rstrip('/')}/*{suffix}")
    return f" If the {suffix} files are manifests, set manifest.path to {pattern} instead."


class _SuffixFilter:
    """Decides by its name whether a file is listed."""

    def __init__(self, suffixes: Iterable[str]) -> None:
        given = tuple(suffix.lower() for suffix in suffixes)
        self._listed = tuple(filter(None, given))
        self.takes_all = "" in given

    def matches(self, file: str) -> bool:
        """Return whether a file has one of the suffixes. `EVERY_SUFFIX` is not one of them: see `takes_all`."""
        return file.lower().endswith(self._listed)


class _PrefixLister:
    """Lists one folder, prefix or shard, and tallies what it leaves out."""

    def __init__(self, prefix: str, storage: Storage, tally: Tally, suffixes: _SuffixFilter) -> None:
        self._prefix, self._tally, self._suffixes = prefix, tally, suffixes
        self._fs, root = storage.filesystem(prefix)
        self._root = root.rstrip("/") or root

    def rows(self, dataset: str, dataset_from: int | None) -> Iterator[dict[str, Any]]:
        """Yield the rows of the listing. Raises: ManifestError, StorageError."""
        try:
            for file in self._files():
                names = file.relative_path.split("/")[:-1]
                yield from self._rows_of(file, _path_component(names, dataset_from) or dataset)
        except LakeLensError:
            raise
        except Exception as error:
            raise failure(error, display_name(self._prefix)) from error

    def _files(self) -> Iterator[walk.File]:
        if walk.is_folder(self._fs, self._root):
            return walk.files(self._fs, self._root, self._tally)
        if not self._root.lower().endswith(shards.SUFFIX) or not self._fs.isfile(self._root):
            raise ManifestError(self._unfit())
        return iter([walk.single_file(self._fs, self._root)])

    def _unfit(self) -> str:
        """Say why the prefix cannot be listed."""
        try:
            self._fs.info(self._root)
        except FileNotFoundError:
            return f"{display_name(self._prefix)} does not exist; check the path."
        if self._root.lower().endswith(shards.COMPRESSED):
            return f"{display_name(self._prefix)} is a compressed archive: {shards.UNPACK}."
        return f"{display_name(self._prefix)} is a file, but no {shards.SUFFIX} shard; give its folder."

    def _rows_of(self, file: walk.File, dataset: str) -> Iterator[dict[str, Any]]:
        """Yield the row of a file, or the rows of a shard's members."""
        is_shard = file.path.lower().endswith(shards.SUFFIX) and not self._suffixes.matches(file.path)
        if not (is_shard or self._takes(file)) or not self._is_text(file):
            return
        uri = uri_of(self._fs, file.path)
        row = {schema.IMAGE_ID: uri, schema.URI: uri, schema.DATASET: dataset, schema.VERSION: file.version()}
        if not is_shard:
            yield row
            return
        for member in self._members(file.path, uri):
            place = {schema.OFFSET: member.offset, schema.LENGTH: member.length}
            yield row | place | {schema.IMAGE_ID: f"{uri}/{member.name}"}

    def _takes(self, file: walk.File) -> bool:
        """Return whether the suffix of a file makes it an image; otherwise tally it."""
        if self._suffixes.matches(file.path):
            return True
        if file.path.lower().endswith(shards.COMPRESSED):
            self._tally.add_unlisted(f"{self._named(file)} is compressed, and {shards.UNPACK}.")
            return False
        if self._suffixes.takes_all:
            return True
        name = file.relative_path.rpartition("/")[2]
        if file.is_dangling and ending(name) == NO_ENDING:  # its target may be a folder of images
            self._tally.add_unlisted(
                f"{self._named(file)} is a link whose target does not exist or cannot be read."
            )
        else:
            self._tally.leave_out_file(name)
        return False

    def _is_text(self, file: walk.File) -> bool:
        """Return whether a manifest can hold the file's name; otherwise tally it."""
        if is_text(file.path):
            return True
        self._tally.add_unlisted(f"{self._named(file)} is not listed: its name is not UTF-8; rename it.")
        return False

    def _members(self, path: str, uri: str) -> list[shards.Member]:
        """Return the images of a shard, in its order."""
        try:
            with self._fs.open(path, "rb") as opened:
                shard = shards.read(opened)
        except OSError as error:
            if not walk.concerns_one_path(self._fs, error):
                raise
            self._tally.add_unlisted(str(failure(error, display_name(uri))))
            return []
        images = [member for member in shard.members if self._takes_member(member.name)]
        self._tally_shard(shard, uri, images)
        return [member for member in images if member.problem is None]

    def _tally_shard(self, shard: shards.Shard, uri: str, images: list[shards.Member]) -> None:
        problems = [member for member in images if member.problem is not None]
        listed = len(images) - len(problems)
        for member in problems:
            self._tally.add_unlisted(
                f"{display_name(member.name)} in the shard {display_name(uri)} is not listed: {member.problem}."
            )
        for name in shard.superseded:
            if _is_any_hidden(name):
                self._tally.leave_out(HIDDEN)
            else:
                self._tally.superseded += 1
        if shard.special:
            self._tally.leave_out(SPECIAL, shard.special)
        if shard.damage is not None:
            before = f" The images before that are listed: {listed:,}." if listed else ""
            self._tally.add_unlisted(f"The shard {display_name(uri)} is damaged: {shard.damage}.{before}")

    def _takes_member(self, name: str) -> bool:
        """Return whether a member is listed; otherwise tally it."""
        if _is_any_hidden(name):
            self._tally.leave_out(HIDDEN)
        elif self._suffixes.takes_all or self._suffixes.matches(name):
            return True
        else:
            self._tally.leave_out_file(name.rpartition("/")[2])
        return False

    def _named(self, file: walk.File) -> str:
        return display_name(uri_of(self._fs, file.path))


def _is_any_hidden(name: str) -> bool:
    return any(map(is_hidden, name.split("/")))


def _path_component(names: list[str], index: int | None) -> str | None:
    if index is None or not -len(names) <= index < len(names):
        return None
    return names[index]


def uri_of(fs: Any, path: str) -> str:
    """Return the URI of a path inside a filesystem; local paths stay plain."""
    return path if "file" in (fs.protocol, *fs.protocol) else str(fs.unstrip_protocol(path))
