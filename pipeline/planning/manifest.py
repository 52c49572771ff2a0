"""Manifests in, one DuckDB view out.

The manifest files are read in the order of the config, as Parquet, CSV or JSONL. The view has the canonical
columns, the kept columns and the reason why a row is invalid. It does not know which rows are already done.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from pipeline.config import ManifestConfig
from pipeline.errors import ManifestError
from pipeline.planning.listing import uri_of, write_listing
from pipeline.planning.listing_report import Listing, merge
from pipeline.planning.manifest_file import ManifestFile, Source
from pipeline.planning.manifest_files import ManifestFiles
from pipeline.planning.relation import relation
from pipeline.schema import ROW_BITS
from pipeline.storage import sql
from pipeline.storage.filesystems import Storage, failure
from pipeline.storage.uris import is_http, redacted, without_query

Result = TypeVar("Result")

FORMATS = {
    "parquet": (".parquet", ".pq"),
    "csv": (".csv", ".csv.gz", ".tsv", ".tsv.gz"),
    "jsonl": (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"),
}


@dataclass(frozen=True)
class InputReport:
    """What people should know about a manifest that was read.

    `listing` covers the folders that were listed for it. `notes` are sentences about values that are read in
    another way than the manifest's author may expect. `files` are the names of the manifest files, for messages.
    """

    listing: Listing
    notes: tuple[str, ...]
    files: tuple[str, ...]

    def place(self, ordinal: int) -> str:
        """Return where a row is, such as `row 7 of /lake/m.csv`."""
        row = ordinal & ((1 << ROW_BITS) - 1)
        return f"row {row + 1:,} of {self.files[ordinal >> ROW_BITS]}"


def create_input(
    connection: duckdb.DuckDBPyConnection,
    config: ManifestConfig,
    storage: Storage,
    scratch: Path,
    where: str | None = None,
    *,
    id_format: int,
    check_text: bool = False,
) -> InputReport:
    """Create the view `input`, the relation of all manifest files, and report what people should know about them.

    `scratch` lasts as long as the connection. `where` is an SQL condition on the manifest's own columns.
    `id_format` is the format of the output, which decides the ids. `check_text` checks the text of Parquet files
    value by value: see `retry_with_text_checks`. Raises: like `sources`, `ManifestFiles` and `relation`.
    """
    connection.execute("SET TimeZone = 'UTC'")  # the only time zone of Delta
    found = sources(config, storage, scratch)
    files = ManifestFiles(found, config, storage, scratch, where=where, id_format=id_format, check_text=check_text)
    sql.register_stores(connection, [file.source.uri for file in files.files if file.copy is None], storage)
    relation(files, connection).create_view("input", replace=True)
    return InputReport(
        merge(source.listing for source in found), tuple(files.notes), tuple(map(_name, files.files))
    )


def _name(file: ManifestFile) -> str:
    return "the listing" if file.source.listing.rows else file.name


def retry_with_text_checks(read: Callable[[bool], Result]) -> Result:
    """Return `read(False)`, or `read(True)` if DuckDB finds text in a Parquet file that is not UTF-8.

    DuckDB ends a query at such text. With `check_text` each such value becomes null. Raises: what `read` raises.
    """
    try:
        return read(False)
    except duckdb.InvalidInputException as error:
        if "Invalid string encoding" not in str(error):
            raise
    return read(True)


def sources(config: ManifestConfig, storage: Storage, scratch: Path) -> list[Source]:
    """Return the manifest files that the config names; a folder of images is first listed into `scratch`.

    Raises: ManifestError for a path that does not exist or is not a manifest, StorageError.
    """
    found: list[Source] = []
    for number, path in enumerate(config.path):
        fs, inner = storage.filesystem(path)
        try:
            matches = _matches(fs, inner, path)
            folder = matches == [inner] and fs.info(inner)["type"] == "directory"
        except Exception as error:
            raise failure(error, path) from error
        if not matches:
            kind = (
                "No file matches the manifest {}"
                if re.search(r"[*?\[]", path)
                else "The manifest {} does not exist"
            )
            raise ManifestError(f"{kind.format(redacted(path))}; check manifest.path.")
        if folder:
            listing = str(scratch / f"listing-{number}.parquet")
            listed = write_listing(path, listing, storage, dataset=config.dataset)
            found.append(Source(listing, "parquet", listed))
        else:
            found += [Source(uri_of(fs, match), _format(match)) for match in matches]
    return found


def _matches(fs: Any, path: str, uri: str) -> list[str]:
    """Return the files that a path or a glob names, sorted. A name that exists is not a pattern.

    The folders before the first star or question mark are also names and not patterns, if they exist.
    """
    if _exists(fs, path):
        return [path]
    if is_http(uri) or not re.search(r"[*?\[]", path):
        return []
    named = path[: re.search(r"[*?]|$", path).start()]  # type: ignore[union-attr]
    folder = named[: named.rfind("/") + 1]
    literal = folder.replace("[", "[[]") if "[" in folder and _exists(fs, folder.rstrip("/")) else folder
    rest = path[len(folder) :]
    return sorted(fs.glob(literal + rest)) or sorted(fs.glob(literal + rest.replace("[", "[[]")))


def _exists(fs: Any, path: str) -> bool:
    """Return whether a file or folder exists. Unlike `fs.exists`, raise an error if access is denied."""
    try:
        fs.info(path)
    except FileNotFoundError:
        return False
    return True


def _format(path: str) -> str:
    for name, suffixes in FORMATS.items():
        if without_query(path).lower().endswith(suffixes):
            return name
    raise ManifestError(
        f"{redacted(path)} is not a manifest: its name must end in .parquet, .pq, "
        ".csv, .tsv, .jsonl or .ndjson, the last four also with .gz. For a folder of images, give the folder."
    )
