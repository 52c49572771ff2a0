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
    ending,
    is_hidden,
    is_text,
    named,
)
from pipeline.storage.filesystems import Storage, failure

HEIF_SUFFIXES = (".heic", ".heif", ".hif") if find_spec("pillow_heif") else ()
"""Those of the extra `heif`, where it is installed."""
IMAGE_SUFFIXES = (
    *HEIF_SUFFIXES,
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".avif", ".jp2", ".j2k", ".jpx", ".mpo", ".ico", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
)
"""File names that a listing takes for images, compared in lower case."""
EVERY_SUFFIX = ("",)
"""Take all files; shards are still read, and hidden files left out."""
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
    """List the images below folders or prefixes, or of single tar shards, into a Parquet manifest.

    Returns how many rows were written, and what was not listed. Links are followed; hidden files are left out.
    Members of tar shards (WebDataset) are listed with their offset and length; their image_id is the shard's uri,
    a slash and the member's name. A shard that is damaged is listed as far as it can be read. `dataset_from` picks
    the path component below the prefix that names the dataset: 0 is the first folder, -1 the innermost; an image
    without it goes to `dataset`. Raises: ManifestError if there is no image, StorageError.
    """
    prefixes = [prefixes] if isinstance(prefixes, str) else prefixes
    tally, taken = Tally(), _Endings(suffixes)
    rows = chain.from_iterable(
        _Lake(prefix, storage, tally, taken).rows(dataset, dataset_from) for prefix in prefixes
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
        storage.upload(Path(scratch.name), out)  # all of it or nothing
    return tally.listing(count)


def _nothing(prefixes: Sequence[str], listing: Listing) -> str:
    where = ", ".join(map(named, prefixes))
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
    pattern = named(f"{prefix.rstrip('/')}/*{suffix}")
    return f" If the {suffix} files are manifests, set manifest.path to {pattern} instead."


class _Endings:
    """Which names are listed."""

    def __init__(self, suffixes: Iterable[str]) -> None:
        given = tuple(suffix.lower() for suffix in suffixes)
        self._listed = tuple(filter(None, given))
        self.all = "" in given

    def name(self, file: str) -> bool:
        """Whether the ending of a file is one of them; not by being one of all."""
        return file.lower().endswith(self._listed)


class _Lake:
    """One folder, prefix or shard that is listed; what is not listed is tallied."""

    def __init__(self, prefix: str, storage: Storage, tally: Tally, endings: _Endings) -> None:
        self._prefix, self._tally, self._endings = prefix, tally, endings
        self._fs, root = storage.filesystem(prefix)
        self._root = root.rstrip("/") or root

    def rows(self, dataset: str, dataset_from: int | None) -> Iterator[dict[str, Any]]:
        """Raises: ManifestError, StorageError."""
        try:
            for file in self._files():
                names = file.below.split("/")[:-1]
                yield from self._of(file, _component(names, dataset_from) or dataset)
        except LakeLensError:
            raise
        except Exception as error:
            raise failure(error, named(self._prefix)) from error

    def _files(self) -> Iterator[walk.File]:
        if walk.is_folder(self._fs, self._root):
            return walk.files(self._fs, self._root, self._tally)
        if not self._root.lower().endswith(shards.SUFFIX) or not self._fs.isfile(self._root):
            raise ManifestError(self._unfit())
        return iter([walk.one(self._fs, self._root)])

    def _unfit(self) -> str:
        """Say why the prefix cannot be listed."""
        try:
            self._fs.info(self._root)
        except FileNotFoundError:
            return f"{named(self._prefix)} does not exist; check the path."
        if self._root.lower().endswith(shards.COMPRESSED):
            return f"{named(self._prefix)} is a compressed archive: {shards.UNPACK}."
        return f"{named(self._prefix)} is a file, but not a {shards.SUFFIX} shard; give the folder that holds it."

    def _of(self, file: walk.File, dataset: str) -> Iterator[dict[str, Any]]:
        """The rows of one file: of a shard, its members."""
        is_shard = file.path.lower().endswith(shards.SUFFIX) and not self._endings.name(file.path)
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
        """Whether a file is listed by its ending; else it is tallied."""
        if self._endings.name(file.path):
            return True
        if file.path.lower().endswith(shards.COMPRESSED):
            self._tally.name(f"{self._named(file)} is compressed, and {shards.UNPACK}.")
            return False
        if self._endings.all:
            return True
        name = file.below.rpartition("/")[2]
        if file.dangling and ending(name) == NO_ENDING:  # it may lead to a folder of images
            self._tally.name(f"{self._named(file)} is a link that cannot be followed.")
        else:
            self._tally.leave_out_file(name)
        return False

    def _is_text(self, file: walk.File) -> bool:
        """Whether a manifest can hold its name; else it is tallied."""
        if is_text(file.path):
            return True
        self._tally.name(f"{self._named(file)} is not listed: its name is not UTF-8; rename it.")
        return False

    def _members(self, path: str, uri: str) -> list[shards.Member]:
        """The images of a shard, in its order."""
        try:
            with self._fs.open(path, "rb") as opened:
                shard = shards.read(opened)
        except OSError as error:
            if not walk.is_lasting(self._fs, error):
                raise
            self._tally.name(str(failure(error, named(uri))))
            return []
        images = [member for member in shard.members if self._takes_member(member.name)]
        self._tell(shard, uri, images)
        return [member for member in images if member.problem is None]

    def _tell(self, shard: shards.Shard, uri: str, images: list[shards.Member]) -> None:
        problems = [member for member in images if member.problem is not None]
        listed = len(images) - len(problems)
        for member in problems:
            self._tally.name(f"{named(member.name)} in the shard {named(uri)} is not listed: {member.problem}.")
        for name in shard.superseded:
            if _is_any_hidden(name):
                self._tally.leave_out(HIDDEN)
            else:
                self._tally.superseded += 1
        if shard.special:
            self._tally.leave_out(SPECIAL, shard.special)
        if shard.damage is not None:
            kept = f"; images before that, which are listed: {listed:,}" if listed else ""
            self._tally.name(f"The shard {named(uri)} is damaged: {shard.damage}{kept}.")

    def _takes_member(self, name: str) -> bool:
        """Whether a member is listed; else it is tallied."""
        if _is_any_hidden(name):
            self._tally.leave_out(HIDDEN)
        elif self._endings.all or self._endings.name(name):
            return True
        else:
            self._tally.leave_out_file(name.rpartition("/")[2])
        return False

    def _named(self, file: walk.File) -> str:
        return named(uri_of(self._fs, file.path))


def _is_any_hidden(name: str) -> bool:
    return any(map(is_hidden, name.split("/")))


def _component(names: list[str], index: int | None) -> str | None:
    if index is None or not -len(names) <= index < len(names):
        return None
    return names[index]


def uri_of(fs: Any, path: str) -> str:
    """A path inside a filesystem as the URI that leads there; local ones stay plain paths."""
    return path if "file" in (fs.protocol, *fs.protocol) else str(fs.unstrip_protocol(path))
