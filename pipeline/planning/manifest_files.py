"""The files of a manifest: their columns, and which of them DuckDB can read as they are.

It does not know what becomes of the rows.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline import columns, schema
from pipeline.config import ManifestConfig
from pipeline.errors import ManifestError
from pipeline.planning import parquet_copy
from pipeline.planning.listing_report import Listing
from pipeline.planning.parquet_copy import Rewritten, Wanted, Writer
from pipeline.storage.filesystems import Storage
from pipeline.storage.sql import literal, quoted
from pipeline.storage.uris import is_http, redacted

OPENED = 16
"""Parquet files whose footers are read at once."""
NAMED = 20
"""Columns that a message names at most."""
PREFIX = "_lakelens_"
"""Of the columns that planning adds."""
KEYS = (schema.URI, schema.IMAGE_ID, schema.DATASET)
"""Columns by whose values a row is known."""

_TAKEN = ("file_row_number", "file_index")
"""Columns that DuckDB adds to Parquet files; those of the same name would hide them."""


@dataclass(frozen=True)
class Source:
    """One manifest file and its format: parquet, csv or jsonl; if it was listed for this, what came of that."""

    uri: str
    format: str
    listing: Listing = Listing()


@dataclass(frozen=True)
class ManifestFile:
    """A manifest file, its own columns, and what it was rewritten as, if it was."""

    source: Source
    number: int
    schema: pa.Schema
    rows: int
    rewritten: Rewritten | None = None

    @property
    def name(self) -> str:
        """Its URI, for messages."""
        return redacted(self.source.uri)

    def find(self, name: str | None) -> columns.Path | None:
        """The column of that name; in JSON lines a dot leads into an object."""
        found = None if name is None else columns.find(self.schema, name)
        if found is None and name is not None and self.source.format == "jsonl" and "." in name:
            head, *rest = name.split(".")
            top = columns.find(self.schema, head)
            return (*top, *rest) if top else None
        return found

    def kind(self, path: columns.Path) -> pa.DataType:
        """The type of what a path leads to."""
        return pa.string() if self.source.format == "jsonl" else columns.type_at(self.schema, path)

    def sql(self, path: columns.Path) -> str:
        """The SQL expression for what a path leads to."""
        head, *rest = path
        found = quoted(head)
        if rest and self.source.format == "jsonl":
            pointer = "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in rest)
            return f"TRY(json_extract_string({found}, {literal(pointer)}))"
        for name in rest:
            found = f"struct_extract({found}, {literal(name)})"
        return found


class ManifestFiles:
    """All files of a manifest. Those that DuckDB cannot read as they are, are rewritten into `scratch`.

    `id_format` is the format of the output, by whose rules rows get their ids. With `check_text` every Parquet
    file is rewritten, and its text is checked. `where` is an SQL condition, for which all columns are kept.
    `notes` are sentences about what is read in another way than the manifest's author may think. Raises:
    ManifestError for a file that cannot be read or lacks a column, StorageError.
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
        with ThreadPoolExecutor(OPENED) as pool:
            opened = pool.map(self._open, sources)
        self.files = [self._file(number, *found) for number, found in enumerate(opened)]
        self._require()
        self.notes = [*self._nulled(), *self._near()]

    def carried(self, file: ManifestFile) -> columns.Path | None:
        """The column that holds the images themselves; None in a file that only points at them."""
        path = file.find(self.names[schema.BYTES]) if file.source.format == "parquet" else None
        return path if path and is_binary(file.kind(path)) else None

    def groups(self) -> list[list[ManifestFile]]:
        """Files that one SELECT can read: what is asked for has the same names and types in them."""
        found: dict[object, list[ManifestFile]] = {}
        for file in self.files:
            paths = tuple(map(file.find, self._asked))
            types = tuple(None if path is None else str(file.kind(path)) for path in paths)
            # A condition may use any column, which must have its own type.
            others = str(file.schema.remove_metadata()) if self.where is not None else ""
            key = (file.source.format, file.rewritten is None, paths, types, others)
            found.setdefault(key, []).append(file)
        return [group for group in found.values() if any(file.rows for file in group)] or list(found.values())[:1]

    def path(self, file: ManifestFile, key: str) -> columns.Path | None:
        """The column of a file that has this meaning, one of `schema`'s; None if there is none.

        In format 1, letter case counts where ids and versions depend on it.
        """
        name = self.names[key]
        if self.id_format == 1 and key in (schema.IMAGE_ID, schema.DATASET, schema.VERSION):
            return (name,) if name is not None and name in file.schema.names else None
        return file.find(name)

    @property
    def _asked(self) -> list[str]:
        return [*filter(None, self.names.values()), *self.config.keep]

    def _open(self, source: Source) -> tuple[Source, pa.Schema, int]:
        """The columns and the number of rows of a Parquet file, from its footer."""
        if source.format != "parquet":
            return source, pa.schema([]), 0
        with parquet_copy.parquet_file(source.uri, self._storage) as file:
            return source, file.schema_arrow, file.metadata.num_rows

    def _file(self, number: int, source: Source, own: pa.Schema, rows: int) -> ManifestFile:
        writer = Writer(source.uri, number, self._scratch, self._wanted())
        if source.format != "parquet":
            rewrite = parquet_copy.csv if source.format == "csv" else parquet_copy.json_lines
            done = rewrite(writer, self._storage)
            return ManifestFile(source, number, done.schema, done.rows, done)
        file = ManifestFile(source, number, own, rows)
        taken = any(columns.find(own, name) for name in _TAKEN)
        if not (taken or self._check_text or is_http(source.uri)):
            return file
        done = parquet_copy.parquet(writer, self._storage, self._left_out(file))
        return ManifestFile(source, number, own, rows, done)

    def _wanted(self) -> Wanted:
        heads = {name.partition(".")[0] for name in self._asked}
        ids = (schema.IMAGE_ID, schema.DATASET, schema.VERSION) if self.id_format > 1 else ()
        asked = _lower([*self._asked, *heads])
        return Wanted(
            asked, self.where is not None, _lower(map(self.names.get, KEYS)), _lower(map(self.names.get, ids))
        )

    def _left_out(self, file: ManifestFile) -> set[str]:
        """Columns that are not rewritten: images, and what nobody asks for."""
        carrying = self.carried(file)
        images = {carrying[0]} if carrying else set()
        if self.where is not None:
            return images
        return {*file.schema.names} - {path[0] for path in map(file.find, self._asked) if path} | images

    def _require(self) -> None:
        """Raises: ManifestError for a column that is asked for and is not there."""
        filled = [file for file in self.files if file.rows or file.schema.names]
        for file in filled:
            self._refuse_names(file)
            self._refuse_nested(file)
            if file.find(self.names[schema.URI]) is None and self.carried(file) is None:
                raise _lacking(file, f"manifest.columns.{schema.URI}", self.names[schema.URI] or schema.URI)
        renamed = [(key, name) for key, name in self.names.items() if name not in (None, key)]
        asked = [(f"manifest.columns.{key}", name, key == schema.BYTES) for key, name in renamed]
        for key, name, carried in [*asked, *(("manifest.keep", name, False) for name in self.config.keep)]:
            if filled and not any(self.carried(file) if carried else file.find(name) for file in filled):
                raise _lacking(filled[0], key, str(name))

    def _refuse_names(self, file: ManifestFile) -> None:
        """Raises: ManifestError for columns that cannot be told from others."""
        for name in file.schema.names:
            if name.casefold().startswith(PREFIX):
                raise ManifestError(
                    f"The manifest {file.name} has a column {redacted(name)!r}; rename it, LakeLens uses it."
                )
        for path in filter(None, map(file.find, self._asked)):
            if file.source.format == "parquet" and (alike := columns.twins(file.schema, path)):
                raise ManifestError(
                    f"The manifest {file.name} has the columns {' and '.join(map(repr, alike))}, whose names "
                    "are equal apart from letter case; rename one of them."
                )

    def _refuse_nested(self, file: ManifestFile) -> None:
        """Raises: ManifestError for a column of lists of images, and for a struct whose field is not named."""
        name = self.names[schema.BYTES]
        if file.source.format != "parquet" or name is None:
            return
        if name == schema.BYTES and file.find(self.names[schema.URI]) is not None:
            return  # the default, which this file does not mean
        path = file.find(name)
        if path is not None and pa.types.is_struct(file.kind(path)):
            raise _lacking(file, f"manifest.columns.{schema.BYTES}", name)
        if lists := columns.lists_in(file.schema, name):
            raise ManifestError(
                f"The manifest {file.name} holds a list of images in the column {lists!r}; write one row for each "
                "image."
            )

    def _nulled(self) -> Iterator[str]:
        for file in self.files:
            for name, (values, first) in (file.rewritten.nulled if file.rewritten else {}).items():
                yield (
                    f"{values:,} value{' is' if values == 1 else 's are'} not UTF-8 in the column {name!r} of "
                    f"{file.name}, first in {first}: null was taken instead."
                )

    def _near(self) -> Iterator[str]:
        """For the standard names that no file has: columns that may be meant."""
        for key, name in self.names.items():
            if name != key or key == schema.BYTES or any(file.find(name) for file in self.files):
                continue
            for file in self.files:
                used = {path[0] for path in map(file.find, self._asked) if path}
                meant = columns.near(name, [other for other in file.schema.names if other not in used])
                if meant:
                    yield (
                        f"{file.name} has no column {name!r}, but one that is called {meant!r}. If that is meant, "
                        f"set manifest.columns.{key} to it."
                    )
                    break


def is_binary(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are bytes."""
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(check(kind) for check in checks)


def _lower(names: Iterable[str | None]) -> set[str]:
    return {name.casefold() for name in names if name is not None}


def _lacking(file: ManifestFile, key: str, name: str) -> ManifestError:
    """Says which columns there are, and which one may be meant."""
    path = file.find(name)
    if path is not None and pa.types.is_struct(file.kind(path)):
        fields = ", ".join(f"{name}.{field.name}" for field in file.kind(path))
        return ManifestError(
            f"{name!r} ({key}) of the manifest {file.name} is a struct; name a field of it: {fields}."
        )
    meant = columns.near(name, file.schema.names)
    hint = f"; did you mean {meant!r}?" if meant and meant != name else "."
    what = "binary column" if path is not None else "column"
    names = [redacted(name) for name in file.schema.names[:NAMED]]
    have = ", ".join([*names, "…"] if len(file.schema.names) > NAMED else names) or "none"
    return ManifestError(f"The manifest {file.name} has no {what} {name!r} ({key}); it has {have}{hint}")
