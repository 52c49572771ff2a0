"""The files of a manifest -> one DuckDB relation: the canonical columns, the kept ones, and why a row is invalid.

It does not know which rows are already done.
"""

import re
from collections.abc import Mapping

import duckdb
import pyarrow as pa

from pipeline import schema
from pipeline.config import ManifestConfig
from pipeline.errors import ConfigError, ManifestError, first_line
from pipeline.planning.manifest_files import KEYS, ManifestFile, ManifestFiles, is_binary
from pipeline.planning.parquet_copy import EXACT
from pipeline.schema import ORDINAL, ROW_BITS, SOURCE, UNREADABLE
from pipeline.storage import data_uris, sql, uris
from pipeline.storage.sql import literal, quoted
from pipeline.storage.uris import redacted

MAX_DATASET_BYTES = 200
"""Longest percent-encoded dataset name: it is a folder name, and file systems stop at 255 bytes."""

_RAW = {name: f"_lakelens_raw_{name}" for name in (*KEYS, schema.OFFSET, schema.LENGTH)}
"""What a manifest says, as text, before it is resolved and checked."""
_NO_TEXT = "CAST(NULL AS VARCHAR)"
_PLAIN_TYPES = re.compile(
    r"BOOLEAN|TINYINT|SMALLINT|INTEGER|BIGINT|FLOAT|DOUBLE|VARCHAR|BLOB|DATE|TIMESTAMP|DECIMAL\(.*\)"
    r"|TIMESTAMP WITH TIME ZONE"
)
_WHOLE_TYPES = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")


def relation(manifest: ManifestFiles, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    """The columns of `schema.PENDING`, the kept ones, and those that planning adds: see `schema.ORDINAL`.

    A relative uri is taken relative to its manifest file; an image that the manifest carries is only pointed at.
    Every query reads the files anew. Raises: ManifestError for files that cannot be read together, ConfigError for
    a condition that does not fit.
    """
    try:
        groups = [(group[0], _table(manifest, group)) for group in manifest.groups()]
        for file, table in groups:
            _require_fit(manifest, connection, file, table)
        kept = {name: _common_type(connection, name, groups) for name in manifest.config.keep}
        rows = " UNION ALL BY NAME ".join(_canonical(manifest, file, table, kept) for file, table in groups)
        return connection.sql(
            f"SELECT * EXCLUDE ({_RAW[schema.OFFSET]}, {_RAW[schema.LENGTH]}, {UNREADABLE}), "
            f"{_PROBLEM} AS {schema.PROBLEM} FROM ({rows})"
        )
    except duckdb.Error as error:
        raise unreadable(error, manifest.config) from error


def unreadable(error: duckdb.Error, config: ManifestConfig) -> ManifestError:
    """DuckDB's complaint about a manifest file, as one sentence."""
    first = uris.without_queries(first_line(error))
    return ManifestError(f"Cannot read the manifest {', '.join(map(redacted, config.path))}: {first}.")


def _table(manifest: ManifestFiles, group: list[ManifestFile]) -> str:
    """SQL for the rows of a group of files: their own columns, `SOURCE`, `ORDINAL` and `UNREADABLE`."""
    missing = _missing(manifest, group)
    if group[0].rewritten is not None:
        paths = [path for file in group if file.rewritten is not None for path in file.rewritten.files]
        return (
            f"(SELECT *{missing} FROM read_parquet({sql.files(paths)}, hive_partitioning = false, "
            "union_by_name = true))"
        )
    numbers = [file.number for file in group]
    number = f"(file_index::BIGINT + {numbers[0]})"
    if numbers != [*range(numbers[0], numbers[0] + len(numbers))]:
        number = f"{numbers}[file_index::BIGINT + 1]"
    alike = all(file.schema.equals(group[0].schema) for file in group)
    return (
        f"(SELECT *, ({number}::BIGINT << {ROW_BITS}) + file_row_number AS {ORDINAL}, {_NO_TEXT} AS {UNREADABLE}"
        f"{missing} FROM read_parquet({sql.files(file.source.uri for file in group)}, filename = '{SOURCE}', "
        f"hive_partitioning = false, union_by_name = {str(not alike).lower()}))"
    )


def _missing(manifest: ManifestFiles, group: list[ManifestFile]) -> str:
    """For a condition: nulls for the columns that only files of other groups have."""
    if manifest.where is None:
        return ""
    have = {name.casefold() for file in group for name in file.schema.names}
    others = {name.casefold(): name for file in manifest.files for name in file.schema.names}
    return "".join(f", NULL AS {quoted(name)}" for lower, name in others.items() if lower and lower not in have)


def _require_fit(
    manifest: ManifestFiles, connection: duckdb.DuckDBPyConnection, file: ManifestFile, table: str
) -> None:
    """Raises: ConfigError for a condition that the manifest's columns do not fit."""
    if manifest.where is None:
        return
    try:
        connection.execute(f"SELECT 1 FROM {table} WHERE CAST(({manifest.where}\n) AS BOOLEAN) LIMIT 0")
    except duckdb.Error as error:
        said = uris.without_queries(first_line(error))
        raise ConfigError(f"--where {manifest.where} does not fit the manifest {file.name}: {said}.") from error


def _common_type(connection: duckdb.DuckDBPyConnection, name: str, groups: list[tuple[ManifestFile, str]]) -> str:
    """The type that a kept column is read as: that of its files, or one that holds the values of all exactly."""
    values: dict[str, list[str]] = {}
    for file, table in groups:
        path = file.find(name)
        if path is not None and not pa.types.is_null(file.kind(path)):
            read = f"SELECT {file.sql(path)} AS value FROM {table}"
            values.setdefault(_kept_type(str(connection.sql(f"{read} LIMIT 0").types[0])), []).append(read)
    if len(values) == 1:
        return next(iter(values))
    if values and values.keys() <= {"DATE", "TIMESTAMP"}:
        return "TIMESTAMP"
    if values and values.keys() <= {*_WHOLE_TYPES, "FLOAT", "DOUBLE"}:
        whole = [read for kind in _WHOLE_TYPES for read in values.get(kind, ())]
        if len(values.keys() - {*_WHOLE_TYPES}) == 0:
            return max(values, key=_WHOLE_TYPES.index)
        ((largest,),) = connection.execute(
            f"SELECT max(abs(value::HUGEINT)) FROM ({' UNION ALL '.join(whole) or 'SELECT 0 AS value'})"
        ).fetchall()
        return "DOUBLE" if (largest or 0) <= EXACT else "VARCHAR"
    return "VARCHAR"


def _kept_type(kind: str) -> str:
    """The type that a kept column has in the output: Delta knows no unsigned or nested-exotic ones."""
    if _PLAIN_TYPES.fullmatch(kind):
        return kind
    if kind.startswith("TIMESTAMP_"):  # of another unit; Delta has microseconds
        return "TIMESTAMP"
    return "BIGINT" if kind in ("UTINYINT", "USMALLINT", "UINTEGER") else "VARCHAR"


def _canonical(manifest: ManifestFiles, file: ManifestFile, table: str, kept: Mapping[str, str]) -> str:
    """SELECT that gives the files of a group, of which this is one, the canonical columns and the kept ones."""
    carried = manifest.carried(file) is not None
    raw = {key: _text(manifest, file, key) for key in KEYS} | _range(manifest, file)
    columns = [
        *(f"{text} AS {_RAW[key]}" for key, text in raw.items()),
        f"{_text(manifest, file, schema.VERSION)} AS version",
        f"{SOURCE if carried else _NO_TEXT} AS {schema.CARRIED_IN}",
        f"{_ROW if carried else 'CAST(NULL AS BIGINT)'} AS {schema.ROW}",
        f"coalesce(CAST(({manifest.where or 'true'}\n) AS BOOLEAN), false) AS {schema.SELECTED}",
        f"coalesce({', '.join([UNREADABLE, *_undecoded(manifest, file)])}) AS {UNREADABLE}",
        *(f"{_kept(file, name, kind)} AS {quoted(name)}" for name, kind in kept.items()),
    ]
    default_id = _DEFAULT_ID if manifest.id_format > 1 else "uri"
    return (
        f"SELECT {_RESOLVED_URI} AS uri, coalesce({_RAW[schema.IMAGE_ID]}, {default_id}) AS image_id, "
        f"coalesce({_RAW[schema.DATASET]}, {literal(manifest.config.dataset)}) AS dataset, version, "
        f'TRY_CAST({_RAW[schema.OFFSET]} AS BIGINT) AS "offset", '
        f"TRY_CAST({_RAW[schema.LENGTH]} AS BIGINT) AS length, "
        f"* EXCLUDE ({SOURCE}, {', '.join(_RAW[key] for key in KEYS)}, version) "
        f"FROM (SELECT {SOURCE}, {ORDINAL}, {', '.join(columns)} FROM {table})"
    )


def _text(manifest: ManifestFiles, file: ManifestFile, key: str) -> str:
    """SQL for a canonical column as text; null if the file has none."""
    path = manifest.path(file, key)
    if path is None:
        return _NO_TEXT
    found, kind = file.sql(path), file.kind(path)
    if pa.types.is_nested(kind):
        return f"CAST(to_json({found}) AS VARCHAR)"
    if is_binary(kind):
        return f"TRY(decode({found}))"
    if pa.types.is_floating(kind) and (manifest.id_format > 1 or key in (schema.OFFSET, schema.LENGTH)):
        return (
            f"CASE WHEN isnan({found}) THEN NULL WHEN {found} = trunc({found}) AND abs({found}) < {EXACT:.0f} "
            f"THEN CAST(CAST({found} AS BIGINT) AS VARCHAR) ELSE CAST({found} AS VARCHAR) END"
        )
    return f"CAST({found} AS VARCHAR)"


def _range(manifest: ManifestFiles, file: ManifestFile) -> dict[str, str]:
    """SQL for offset and length as text. A length alone is no range where the file has no column of offsets."""
    off = manifest.names[schema.LENGTH] is None or file.find(manifest.names[schema.OFFSET]) is None
    return {key: _NO_TEXT if off else _text(manifest, file, key) for key in (schema.OFFSET, schema.LENGTH)}


def _undecoded(manifest: ManifestFiles, file: ManifestFile) -> list[str]:
    """SQL for the reasons why a key that is stored as bytes is no text."""
    paths = [manifest.path(file, key) for key in KEYS]
    return [
        f"CASE WHEN {value} IS NOT NULL AND TRY(decode({value})) IS NULL "
        f"THEN {literal('.'.join(path) + ' is not UTF-8')} END"
        for path in paths
        if path is not None and is_binary(file.kind(path))
        for value in [file.sql(path)]
    ]


def _kept(file: ManifestFile, name: str, kind: str) -> str:
    """SQL for a kept column."""
    path = file.find(name)
    if path is None or pa.types.is_null(file.kind(path)):
        return f"CAST(NULL AS {kind})"
    value = file.sql(path)
    if pa.types.is_nested(file.kind(path)):
        value = f"to_json({value})"
    return f"CAST({value} AS {kind})"


_WHOLE = r"\d+(\.0+)?"
_ROW = f"{ORDINAL} & {(1 << ROW_BITS) - 1}"
_PLAIN_SOURCE = (
    f"CASE WHEN regexp_matches({SOURCE}, '{uris.HTTP_PATTERN}') "
    f"THEN regexp_replace({SOURCE}, '{uris.QUERY_PATTERN}', '') "
    f"ELSE {SOURCE} END"
)
"""A manifest's URL without its signature."""
_URI = _RAW[schema.URI]
_RESOLVED_URI = (
    f"CASE WHEN coalesce({_URI}, '') = '' AND {schema.ROW} IS NOT NULL "
    f"THEN {_PLAIN_SOURCE} || '{uris.ROW_MARK}' || {schema.ROW} "
    f"WHEN regexp_matches({_URI}, '{uris.ABSOLUTE_PATTERN}') OR {_URI} = '' "
    f"THEN {_URI} ELSE regexp_replace({_PLAIN_SOURCE}, '[^/]*$', '') || {_URI} END"
)
_FIRST = f"TRY_CAST({_RAW[schema.OFFSET]} AS HUGEINT)"
_TYPE = r"[\w!#$&^.+-]{1,127}"
_DEFAULT_ID = (
    "CASE WHEN regexp_matches(uri, '^(?i:data:)[^,]*,') THEN 'data:' || coalesce(nullif(regexp_extract(uri, "
    rf"'^(?i:data:)\s*({_TYPE}/{_TYPE})\s*[;,]', 1), ''), '{data_uris.DEFAULT_TYPE}') "
    "|| ';sha256=' || sha256(uri) ELSE uri END "
    f"|| coalesce('{uris.BYTES_MARK}' || {_FIRST} || '-' "
    f"|| ({_FIRST} + TRY_CAST({_RAW[schema.LENGTH]} AS HUGEINT) - 1), '')"
)
"""That of a data: URI is what `data_uris.hashed` gives."""
_PROBLEM = f"""CASE
    WHEN {UNREADABLE} IS NOT NULL THEN {UNREADABLE}
    WHEN uri IS NULL OR uri = '' THEN 'uri is missing'
    WHEN image_id = '' THEN 'image_id is empty'
    WHEN dataset IN ('', '__HIVE_DEFAULT_PARTITION__') THEN 'dataset is empty or a reserved name'
    WHEN strlen(url_encode(dataset)) > {MAX_DATASET_BYTES}
    THEN 'dataset is longer than {MAX_DATASET_BYTES} bytes percent-encoded'
    WHEN ({_RAW[schema.OFFSET]} IS NULL) <> ({_RAW[schema.LENGTH]} IS NULL)
        OR NOT regexp_full_match({_RAW[schema.OFFSET]}, '{_WHOLE}')
        OR NOT regexp_full_match({_RAW[schema.LENGTH]}, '{_WHOLE}')
        OR ({_RAW[schema.OFFSET]} IS NOT NULL AND ("offset" IS NULL OR length IS NULL))
    THEN 'offset or length is missing, negative or not a whole number'
    END"""
