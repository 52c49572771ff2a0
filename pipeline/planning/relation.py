"""Manifest files to one DuckDB relation: the canonical columns, the kept ones, and why a row is invalid.

It does not know which rows are already done.
"""

from collections.abc import Iterable

import duckdb
import pyarrow as pa

from pipeline.config import ManifestConfig
from pipeline.errors import ConfigError, ManifestError, first_line
from pipeline.output.column_types import table_type
from pipeline.planning import row_sql
from pipeline.planning.group_sql import Group
from pipeline.planning.manifest_files import ManifestFiles
from pipeline.planning.parquet_copy import EXACT
from pipeline.storage import uris
from pipeline.storage.uris import redacted

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")


def relation(manifest: ManifestFiles, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    """Return the columns of `schema.PENDING`, the kept ones, and those that planning adds: see `column_names`.

    A relative uri is relative to its manifest file. Images that the manifest carries are not read. Every query
    reads the files again. Raises: ManifestError for files that cannot be read together, ConfigError for a
    condition that the manifest's columns do not fit.
    """
    try:
        groups = [Group(manifest, files) for files in manifest.groups()]
        if manifest.where is not None:
            for group in groups:
                _require_fit(connection, group, manifest.where)
        kept = {name: _common_type(connection, name, groups) for name in manifest.config.keep}
        resolved = [
            row_sql.resolved(group.raw_rows(kept), manifest.config.dataset, manifest.id_format) for group in groups
        ]
        return connection.sql(row_sql.checked(" UNION ALL BY NAME ".join(resolved)))
    except duckdb.Error as error:
        raise unreadable(error, manifest.config) from error


def unreadable(error: duckdb.Error, config: ManifestConfig) -> ManifestError:
    """Map DuckDB's error about a manifest file to one sentence."""
    first = uris.without_queries(first_line(error))
    return ManifestError(f"Cannot read the manifest {', '.join(map(redacted, config.path))}: {first}.")


def _require_fit(connection: duckdb.DuckDBPyConnection, group: Group, where: str) -> None:
    """Raises: ConfigError for a condition that the columns of a group do not fit."""
    try:
        connection.execute(f"SELECT 1 FROM {group.table()} WHERE CAST(({where}\n) AS BOOLEAN) LIMIT 0")
    except duckdb.Error as error:
        said = uris.without_queries(first_line(error)).removesuffix(".")
        is_text = not group.first.is_parquet and isinstance(error, duckdb.BinderException)
        hint = " The columns of CSV and JSON lines are text; cast them, as in year::INT > 2000." if is_text else ""
        raise ConfigError(
            f"--where {where} does not fit the manifest {group.first.name}: {said}.{hint}"
        ) from error


def _common_type(connection: duckdb.DuckDBPyConnection, name: str, groups: Iterable[Group]) -> str:
    """Return the type of a kept column: that of its files, or one that holds the values of all files exactly."""
    values: dict[str, list[str]] = {}
    for group in groups:
        path = group.first.find(name)
        if path is not None and not pa.types.is_null(group.first.kind(path)):
            read = f"SELECT {group.first.sql(path)} AS value FROM {group.table()}"
            values.setdefault(table_type(str(connection.sql(f"{read} LIMIT 0").types[0])), []).append(read)
    types = values.keys()
    if len(types) == 1:
        return next(iter(types))
    if types and types <= {"DATE", "TIMESTAMP"}:
        return "TIMESTAMP"
    if types and types <= {*_INTEGERS}:
        return max(types, key=_INTEGERS.index)
    if types and types <= {*_INTEGERS, "FLOAT", "DOUBLE"}:
        integers = [read for kind in _INTEGERS for read in values.get(kind, ())]
        return "DOUBLE" if _are_exact_floats(connection, integers) else "VARCHAR"
    return "VARCHAR"


def _are_exact_floats(connection: duckdb.DuckDBPyConnection, integers: list[str]) -> bool:
    """Return whether every integer that these SELECTs give is also a floating-point number."""
    if not integers:
        return True
    rows = " UNION ALL ".join(integers)
    ((largest,),) = connection.execute(f"SELECT max(abs(value::HUGEINT)) FROM ({rows})").fetchall()
    return (largest or 0) <= EXACT
