"""The files of a manifest: which of them DuckDB reads as they are, and which of them one SELECT can read together.

It does not know what happens to the rows.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from pipeline import columns, schema
from pipeline.config import ManifestConfig
from pipeline.planning import column_checks, parquet_copy
from pipeline.planning.manifest_file import ManifestFile, Source, is_binary
from pipeline.planning.parquet_copy import CopyWriter, RequestedColumns
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import is_http

FOOTERS_AT_ONCE = 16
"""Parquet files whose footers are read at the same time."""
KEYS = (schema.URI, schema.IMAGE_ID, schema.DATASET)
"""The columns that identify a row."""

_NAMES_OF_DUCKDB = ("file_row_number", "file_index")
"""Columns that DuckDB adds to Parquet files; a file's own columns of these names would hide them."""


class ManifestFiles:
    """All files of a manifest. Files that DuckDB cannot read as they are, are copied into `scratch`.

    `id_format` is the format of the output, which decides the ids. `where` is an SQL condition on the manifest's
    own columns, all of which are then read. `check_text` copies every Parquet file and checks its text value by
    value. `notes` are sentences about values that are read in another way than the manifest's author may expect.
    Raises: ManifestError for a file that cannot be read or lacks a column, StorageError.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        config: ManifestConfig,
        storage: Storage,
        scratch: Path,
        *,
        id_format: int,
        where: str | None = None,
        check_text: bool = False,
    ) -> None:
        self.config, self.id_format, self.where = config, id_format, where
        self.names: dict[str, str | None] = config.columns.model_dump()
        self._storage, self._scratch, self._check_text = storage, scratch, check_text
        with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
            opened = pool.map(self._open, sources)
        self.files = [self._file(number, *found) for number, found in enumerate(opened)]
        self._require_columns()
        self.notes = [*self._notes_on_nulls(), *self._notes_on_near_names()]

    def carried(self, file: ManifestFile) -> columns.Path | None:
        """Return the column that holds the images themselves; None in a file that only points to them."""
        path = file.find(self.names[schema.BYTES]) if file.is_parquet else None
        return path if path and is_binary(file.kind(path)) else None

    def groups(self) -> list[list[ManifestFile]]:
        """Return the files in groups that one SELECT can read: requested columns have the same names and types."""
        found: dict[object, list[ManifestFile]] = {}
        for file in self.files:
            paths = tuple(map(file.find, self._requested))
            types = tuple(None if path is None else str(file.kind(path)) for path in paths)
            # A condition may use any column, and sees it with the type that its file has.
            others = str(file.schema.remove_metadata()) if self.where is not None else ""
            key = (file.source.format, file.copy is None, paths, types, others)
            found.setdefault(key, []).append(file)
        return [group for group in found.values() if any(file.rows for file in group)] or list(found.values())[:1]

    def path(self, file: ManifestFile, key: str) -> columns.Path | None:
        """Return the path to a canonical column, such as `schema.URI`; None if the file has none.

        In format 1, letter case counts in the names of the columns for ids, datasets and versions.
        """
        name = self.names[key]
        if self.id_format == 1 and key in (schema.IMAGE_ID, schema.DATASET, schema.VERSION):
            return (name,) if name is not None and name in file.schema.names else None
        return file.find(name)

    @property
    def _requested(self) -> list[str]:
        return [*filter(None, self.names.values()), *self.config.keep]

    def _open(self, source: Source) -> tuple[Source, pa.Schema, int]:
        """Return the columns and the number of rows of a Parquet file, from its footer."""
        if source.format != "parquet":
            return source, pa.schema([]), 0
        with parquet_copy.parquet_file(source.uri, self._storage) as file:
            return source, file.schema_arrow, file.metadata.num_rows

    def _file(self, number: int, source: Source, own: pa.Schema, rows: int) -> ManifestFile:
        writer = CopyWriter(source.uri, number, self._scratch, self._requested_columns())
        if source.format != "parquet":
            convert = parquet_copy.csv if source.format == "csv" else parquet_copy.json_lines
            copy = convert(writer, self._storage)
            return ManifestFile(source, number, copy.schema, copy.rows, copy)
        file = ManifestFile(source, number, own, rows)
        hides_names = any(columns.find(own, name) for name in _NAMES_OF_DUCKDB)
        if not (hides_names or self._check_text or is_http(source.uri)):
            return file
        copy = parquet_copy.parquet(writer, self._storage, self._columns_not_copied(file))
        return ManifestFile(source, number, own, rows, copy)

    def _requested_columns(self) -> RequestedColumns:
        heads = {name.partition(".")[0] for name in self._requested}
        ids = (schema.IMAGE_ID, schema.DATASET, schema.VERSION) if self.id_format > 1 else ()
        return RequestedColumns(
            names=_lower([*self._requested, *heads]),
            every=self.where is not None,
            keys=_lower(map(self.names.get, KEYS)),
            ids=_lower(map(self.names.get, ids)),
        )

    def _columns_not_copied(self, file: ManifestFile) -> set[str]:
        """Return the columns that a copy omits: images, and those that are not requested."""
        carried = self.carried(file)
        images = {carried[0]} if carried else set()
        if self.where is not None:
            return images
        return {*file.schema.names} - {path[0] for path in map(file.find, self._requested) if path} | images

    def _require_columns(self) -> None:
        """Raises: ManifestError for a requested column that is not there, or cannot be read."""
        filled = [file for file in self.files if file.rows or file.schema.names]
        for file in filled:
            column_checks.refuse_names(file, self._requested)
            self._require_images(file)
        renamed = [(key, name) for key, name in self.names.items() if name not in (None, key)]
        asked = [(f"manifest.columns.{key}", name, key == schema.BYTES) for key, name in renamed]
        for key, name, is_carried in [*asked, *(("manifest.keep", name, False) for name in self.config.keep)]:
            if filled and not any(self.carried(file) if is_carried else file.find(name) for file in filled):
                raise column_checks.lacking(filled[0], key, str(name))

    def _require_images(self, file: ManifestFile) -> None:
        """Raises: ManifestError for a file whose rows neither point to images nor carry them."""
        uri, carried = self.names[schema.URI], self.names[schema.BYTES]
        has_uri = file.find(uri) is not None
        if file.is_parquet and has_uri:
            column_checks.refuse_nested(file, f"manifest.columns.{schema.URI}", str(uri))
        is_default = carried == schema.BYTES and has_uri  # then a column of this name has another meaning
        if file.is_parquet and carried is not None and not is_default:
            column_checks.refuse_nested(file, f"manifest.columns.{schema.BYTES}", carried)
        if not has_uri and self.carried(file) is None:
            raise column_checks.lacking(file, f"manifest.columns.{schema.URI}", uri or schema.URI)

    def _notes_on_nulls(self) -> Iterator[str]:
        for file in self.files:
            for name, (values, first) in (file.copy.nulled if file.copy else {}).items():
                yield (
                    f"{values:,} value{' is' if values == 1 else 's are'} not UTF-8 in the column {name!r} of "
                    f"{file.name}, first in {first}. LakeLens reads null instead."
                )

    def _notes_on_near_names(self) -> Iterator[str]:
        """Yield a note for each standard name that no file has, if a column with a similar name may be meant."""
        for key, name in self.names.items():
            if name != key or key == schema.BYTES or any(file.find(name) for file in self.files):
                continue
            for file in self.files:
                used = {path[0] for path in map(file.find, self._requested) if path}
                meant = columns.near(name, [other for other in file.schema.names if other not in used])
                if meant:
                    yield (
                        f"{file.name} has no column {name!r}, but a column called {meant!r}. If you mean that "
                        f"one, set manifest.columns.{key}: {meant}"
                    )
                    break


def _lower(names: Iterable[str | None]) -> set[str]:
    return {name.casefold() for name in names if name is not None}
