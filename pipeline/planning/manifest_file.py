"""One manifest file: its columns, and the SQL for what is in them.

It does not know what a run asks for.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from pipeline import columns
from pipeline.planning.listing_report import Listing
from pipeline.planning.parquet_copy import ParquetCopy
from pipeline.storage.sql import literal, quoted
from pipeline.storage.uris import redacted


@dataclass(frozen=True)
class Source:
    """The URI of a manifest file and its format: parquet, csv or jsonl.

    `listing` says what was listed, if the file is the listing of a folder.
    """

    uri: str
    format: str
    listing: Listing = Listing()


@dataclass(frozen=True)
class ManifestFile:
    """A manifest file with its own columns; `number` is its position in the manifest, from 0.

    `copy` has the Parquet files that stand for a file that DuckDB cannot read as it is.
    """

    source: Source
    number: int
    schema: pa.Schema
    rows: int
    copy: ParquetCopy | None = None

    @property
    def name(self) -> str:
        """The URI as messages show it."""
        return redacted(self.source.uri)

    @property
    def is_parquet(self) -> bool:
        """Whether the columns have types; those of CSV and JSON lines are text."""
        return self.source.format == "parquet"

    def find(self, name: str | None) -> columns.Path | None:
        """Return the path to the column of this name; None if there is none.

        In Parquet a dot leads into a struct, in JSON lines into an object.
        """
        found = None if name is None else columns.find(self.schema, name)
        if found is None and name is not None and self.source.format == "jsonl" and "." in name:
            head, *rest = name.split(".")
            top = columns.find(self.schema, head)
            return (*top, *rest) if top else None
        return found

    def kind(self, path: columns.Path) -> pa.DataType:
        """Return the type of the column at a path."""
        return pa.string() if self.source.format == "jsonl" else columns.type_at(self.schema, path)

    def is_in_json(self, path: columns.Path) -> bool:
        """Whether a path leads into an object of JSON lines, which is JSON text."""
        return self.source.format == "jsonl" and len(path) > 1

    def sql(self, path: columns.Path) -> str:
        """Return the SQL expression for the column at a path."""
        head, *rest = path
        found = quoted(head)
        if self.is_in_json(path):
            return f"TRY(json_extract_string({found}, {_json_pointer(rest)}))"
        for name in rest:
            found = f"struct_extract({found}, {literal(name)})"
        return found

    def sql_of_json_type(self, path: columns.Path) -> str:
        """Return the SQL expression for the JSON type of a value in an object: DOUBLE, VARCHAR, …"""
        head, *rest = path
        return f"TRY(json_type({quoted(head)}, {_json_pointer(rest)}))"


def _json_pointer(names: Iterable[str]) -> str:
    """Return the JSON pointer (RFC 6901) to the value below these keys, as an SQL literal."""
    return literal("".join("/" + name.replace("~", "~0").replace("/", "~1") for name in names))


def is_binary(kind: pa.DataType) -> bool:
    """Whether the values of an Arrow type are bytes."""
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(check(kind) for check in checks)
