"""Values and stores for DuckDB: values quoted for SQL statements, stores registered as filesystems."""

import re
from collections.abc import Iterable

import duckdb

from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import is_local, is_s3, scheme


def literal(value: str) -> str:
    """Quote a string as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def literals(values: Iterable[str]) -> str:
    """Quote strings as an SQL list."""
    return "[" + ", ".join(map(literal, values)) + "]"


def quoted(column: str) -> str:
    """Quote a column name as an SQL identifier."""
    return '"' + column.replace('"', '""') + '"'


def files(uris: Iterable[str]) -> str:
    """Quote files as an SQL list for DuckDB's readers, which would read `*`, `?` and `[` as a pattern."""
    return literals(re.sub(r"[*?\[]", r"[\g<0>]", uri) for uri in uris)


def register_stores(connection: duckdb.DuckDBPyConnection, uris: Iterable[str], storage: Storage) -> None:
    """Let DuckDB read these URIs with the same fsspec filesystems that LakeLens uses.

    s3fs reads up to 50 MB ahead. DuckDB knows which bytes it needs: a lookup then reads a thirtieth of the bytes.
    """
    for uri in {scheme(uri): uri for uri in uris if not is_local(uri)}.values():
        fs, _ = storage.filesystem(uri)
        if is_s3(uri):
            fs = type(fs)(*fs.storage_args, **{**fs.storage_options, "default_cache_type": "none"})
        names = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
        if names[0] not in connection.list_filesystems():
            connection.register_filesystem(fs)
