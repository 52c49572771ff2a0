"""Read and check manifests.

Manifest files go in, in the order of the config, as Parquet, CSV or JSONL; out comes one DuckDB
relation with the canonical columns, the kept columns and the reason why a row is invalid. It does
not know which rows are already done.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import duckdb

from pipeline import schema
from pipeline.config import ManifestConfig
from pipeline.errors import ConfigError, ManifestError
from pipeline.listed import Listing, merged
from pipeline.listing import uri_of, write_listing
from pipeline.storage import Storage, absolute, failure, scheme

FORMATS = {
    "parquet": (".parquet", ".pq"),
    "csv": (".csv", ".csv.gz", ".tsv", ".tsv.gz"),
    "jsonl": (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"),
}
MAX_DATASET_BYTES = 200
"""Longest percent-encoded dataset name: it is a folder name, and file systems stop at 255 bytes."""

GROUP_BITS, ROW_BITS = 56, 36
"""Of a row's ordinal: where its group of files of one format begins, and its file in there. That leaves 64 groups,
a million files in each, and 7e10 rows a file."""

_FILE, _RAW_URI, _RAW_ID, _RAW_DATASET = (f"_lakelens_{name}" for name in ("file", "uri", "id", "dataset"))
_RAW_OFFSET, _RAW_LENGTH, _TEXT = "_lakelens_offset", "_lakelens_length", "_lakelens_text"
_PLAIN_TYPES = re.compile(
    r"BOOLEAN|TINYINT|SMALLINT|INTEGER|BIGINT|FLOAT|DOUBLE|VARCHAR|BLOB|DATE|TIMESTAMP|DECIMAL\(.*\)"
    r"|TIMESTAMP WITH TIME ZONE"
)


@dataclass(frozen=True)
class Source:
    """One manifest file and its format, a key of `FORMATS`; if it was listed for this, what came of that."""

    uri: str
    format: str
    listing: Listing = Listing()


def sources(config: ManifestConfig, storage: Storage, scratch: Path) -> list[Source]:
    """The manifest files that the config means; a folder of images is listed into `scratch` first.

    Raises: ManifestError for a path that is not there or is no manifest, StorageError.
    """
    found: list[Source] = []
    for number, path in enumerate(config.path):
        fs, inner = storage.filesystem(path)
        try:
            matches = sorted(fs.glob(inner)) if re.search(r"[*?\[]", inner) else []
            exists = bool(matches) or fs.exists(inner)
            folder = exists and not matches and fs.isdir(inner)
        except Exception as error:
            raise failure(error, path) from error
        if not exists:
            raise ManifestError(f"The manifest {path} does not exist; check manifest.path.")
        if folder:
            listing = str(scratch / f"listing-{number}.parquet")
            listed = write_listing(path, listing, storage, dataset=config.dataset)
            found.append(Source(listing, "parquet", listed))
        else:
            found += [Source(uri_of(fs, match), _format(match)) for match in matches or [inner]]
    return found


def relation(
    connection: duckdb.DuckDBPyConnection, files: list[Source], config: ManifestConfig, where: str | None = None
) -> duckdb.DuckDBPyRelation:
    """The columns of `schema.PENDING`, the kept ones, and those that planning adds: see `schema.ORDINAL`.

    A relative uri is taken relative to its manifest file; an image that the manifest carries is only pointed at.
    `where` is an SQL condition on the manifest's own columns. Parquet files are read anew by every query, text is
    kept as a table. Raises: ManifestError for an unreadable file or a column that is not there, ConfigError for a
    condition that does not fit.
    """
    try:
        selects = [
            _canonical(connection, (number, format_), [source.uri for source in group], config, where)
            for number, (format_, group) in enumerate(groupby(files, key=lambda source: source.format))
        ]
        rows = " UNION ALL BY NAME ".join(selects)
        return connection.sql(
            f"SELECT * EXCLUDE ({_RAW_OFFSET}, {_RAW_LENGTH}), {_PROBLEM} AS {schema.PROBLEM} FROM ({rows})"
        )
    except duckdb.Error as error:
        raise unreadable(error, config) from error


def create_input(
    connection: duckdb.DuckDBPyConnection,
    config: ManifestConfig,
    storage: Storage,
    scratch: Path,
    where: str | None = None,
) -> Listing:
    """View `input`: the relation of all manifest files. `scratch` lasts as long as the connection.

    Returns what was listed for it, and what was not. Raises: like `sources` and `relation`.
    """
    files = sources(config, storage, scratch)
    register_stores(connection, [file.uri for file in files], storage)
    relation(connection, files, config, where).create_view("input")
    return merged(file.listing for file in files)


def unreadable(error: duckdb.Error, config: ManifestConfig) -> ManifestError:
    """DuckDB's complaint about a manifest file, as one sentence."""
    first = str(error).strip().splitlines()[0].rstrip(".")
    return ManifestError(f"Cannot read the manifest {', '.join(config.path)}: {first}.")


def _format(path: str) -> str:
    for name, suffixes in FORMATS.items():
        if path.lower().endswith(suffixes):
            return name
    raise ManifestError(f"{path} is not a manifest: its name must end in .parquet, .csv or .jsonl.")


def _canonical(
    connection: duckdb.DuckDBPyConnection,
    group: tuple[int, str],
    uris: list[str],
    config: ManifestConfig,
    where: str | None,
) -> str:
    """SELECT that gives a group of files of one format the canonical columns and the kept ones."""
    number, format_ = group
    reader, options = _READERS[format_], f"union_by_name = true, filename = '{_FILE}'{_OPTIONS[format_]}"
    described = connection.sql(f"DESCRIBE FROM {reader}({literals(uris)}, {options})").fetchall()
    types = {name: kind for name, kind, *_ in described}
    del types[_FILE]
    names = config.columns.model_dump()
    carried = format_ == "parquet" and _holds_bytes(types, names[schema.BYTES])
    _require(types, names, config, uris[0], carried=carried)
    options += ", file_row_number = true" if format_ == "parquet" else ""
    options += _as_written(format_, [name for name in names.values() if name in types])
    rows = f"{reader}({literals(uris)}, {options})"
    if format_ == "jsonl":
        texts = (f"{quoted(name)} ->> '$' AS {quoted(name)}" for name in types)
        rows = f"(SELECT {', '.join([_FILE, *texts])} FROM {rows})"
    _require_fit(connection, where, rows, uris[0])

    def column(name: str, kind: str, alias: str) -> str:
        if name not in types:
            return f"CAST(NULL AS {kind}) AS {alias}"
        text = quoted(name)
        if types[name].startswith(("STRUCT", "MAP")) or types[name].endswith("]"):
            text = f"to_json({text})"
        return f"{'CAST' if kind == 'VARCHAR' else 'TRY_CAST'}({text} AS {kind}) AS {alias}"

    columns = [
        _FILE,
        column(names[schema.URI], "VARCHAR", _RAW_URI),
        column(names[schema.IMAGE_ID], "VARCHAR", _RAW_ID),
        column(names[schema.DATASET], "VARCHAR", _RAW_DATASET),
        column(names[schema.VERSION], "VARCHAR", "version"),
        column(names[schema.OFFSET], "VARCHAR", _RAW_OFFSET),
        column(names[schema.LENGTH], "VARCHAR", _RAW_LENGTH),
        f"{_FILE if carried else 'CAST(NULL AS VARCHAR)'} AS {schema.CARRIED_IN}",
        f"{'file_row_number' if carried else 'CAST(NULL AS BIGINT)'} AS {schema.ROW}",
        f"{_ORDINALS[format_].format(group=number)} AS {schema.ORDINAL}",
        f"coalesce(CAST(({where or 'true'}\n) AS BOOLEAN), false) AS {schema.SELECTED}",
        *(column(name, _kept_type(types[name]), quoted(name)) for name in config.keep),
    ]
    canonical = (
        f"SELECT {_RESOLVED_URI} AS uri, coalesce({_RAW_ID}, uri) AS image_id, "
        f"coalesce({_RAW_DATASET}, {literal(config.dataset)}) AS dataset, version, "
        f'TRY_CAST({_RAW_OFFSET} AS BIGINT) AS "offset", TRY_CAST({_RAW_LENGTH} AS BIGINT) AS length, '
        f"* EXCLUDE ({_FILE}, {_RAW_URI}, {_RAW_ID}, {_RAW_DATASET}, version) "
        f"FROM (SELECT {', '.join(columns)} FROM {rows})"
    )
    if format_ == "parquet":
        return canonical
    connection.execute(f"CREATE TEMP TABLE {_TEXT}{number} AS {canonical}")
    return f"FROM {_TEXT}{number}"


def _require_fit(connection: duckdb.DuckDBPyConnection, where: str | None, rows: str, uri: str) -> None:
    """Raises: ConfigError for a condition that the manifest's columns do not fit."""
    if where is None:
        return
    try:
        connection.execute(f"SELECT 1 FROM {rows} WHERE CAST(({where}\n) AS BOOLEAN) LIMIT 0")
    except duckdb.Error as error:
        said = str(error).strip().splitlines()[0].rstrip(".")
        raise ConfigError(f"--where {where} does not fit the manifest {uri}: {said}.") from error


def _holds_bytes(types: dict[str, str], name: str) -> bool:
    """Whether a column is binary: one of its own, or `column.field` of a struct."""
    column, _, field = name.partition(".")
    kind = types.get(column, "")
    return types.get(name) == "BLOB" or bool(field and re.search(rf'[(, ]"?{re.escape(field)}"? BLOB', kind))


def _as_written(format_: str, columns: list[str]) -> str:
    """Reader options that keep ids as they stand in the file: "007" and dates stay text."""
    if format_ == "csv":
        return ", types = {" + ", ".join(f"{literal(column)}: 'VARCHAR'" for column in columns) + "}"
    return ", maximum_depth = 1" if format_ == "jsonl" else ""


_ORDINALS = {
    "parquet": f"({{group}}::BIGINT << {GROUP_BITS}) + (file_index::BIGINT << {ROW_BITS}) + file_row_number",
    **dict.fromkeys(("csv", "jsonl"), f"({{group}}::BIGINT << {GROUP_BITS}) + row_number() OVER ()"),
}
_READERS = {"parquet": "read_parquet", "csv": "read_csv", "jsonl": "read_json"}
_OPTIONS = {
    "parquet": ", hive_partitioning = false",
    "csv": ", header = true, hive_partitioning = false",
    "jsonl": ", format = 'newline_delimited', hive_partitioning = false",
}
_RESOLVED_URI = (
    rf"CASE WHEN coalesce({_RAW_URI}, '') = '' AND {schema.ROW} IS NOT NULL "
    rf"THEN {schema.CARRIED_IN} || '#row=' || {schema.ROW} "
    rf"WHEN regexp_matches({_RAW_URI}, '^([A-Za-z][A-Za-z0-9+.-]+://|/)') OR {_RAW_URI} = '' THEN {_RAW_URI} "
    rf"ELSE regexp_replace({_FILE}, '[^/]*$', '') || {_RAW_URI} END"
)
_PROBLEM = f"""CASE
    WHEN uri IS NULL OR uri = '' THEN 'uri is missing'
    WHEN image_id = '' THEN 'image_id is empty'
    WHEN dataset IN ('', '__HIVE_DEFAULT_PARTITION__') THEN 'dataset has no usable name'
    WHEN strlen(url_encode(dataset)) > {MAX_DATASET_BYTES} THEN 'dataset is too long a name'
    WHEN ({_RAW_OFFSET} IS NULL) <> ({_RAW_LENGTH} IS NULL)
        OR NOT regexp_full_match({_RAW_OFFSET} || ' ' || {_RAW_LENGTH}, '\\d+(\\.0+)? \\d+(\\.0+)?')
        OR ({_RAW_OFFSET} IS NOT NULL AND ("offset" IS NULL OR length IS NULL)) THEN 'offset and length do not fit'
    END"""


def _require(
    types: dict[str, str], names: dict[str, str], config: ManifestConfig, uri: str, *, carried: bool
) -> None:
    required = [key for key, name in names.items() if name != key]
    required += [] if carried else [schema.URI]
    wanted = [(f"manifest.columns.{key}", names[key]) for key in required]
    wanted += [("manifest.keep", name) for name in config.keep]
    for key, name in wanted:
        there = carried if key == f"manifest.columns.{schema.BYTES}" else name in types
        if not there:
            have = ", ".join(types)
            raise ManifestError(f"The manifest {uri} has no column {name!r} ({key}); it has {have}.")


def _kept_type(kind: str) -> str:
    """The type that a kept column has in the output: Delta knows no unsigned or nested-exotic ones."""
    if _PLAIN_TYPES.fullmatch(kind):
        return kind
    if kind.startswith("TIMESTAMP_"):  # of another unit; Delta has microseconds
        return "TIMESTAMP"
    return "BIGINT" if kind in ("UTINYINT", "USMALLINT", "UINTEGER") else "VARCHAR"


def literal(value: str) -> str:
    """A string as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def literals(values: Iterable[str]) -> str:
    """Strings as an SQL list."""
    return "[" + ", ".join(map(literal, values)) + "]"


def quoted(column: str) -> str:
    """A column name as an SQL identifier."""
    return '"' + column.replace('"', '""') + '"'


def register_stores(connection: duckdb.DuckDBPyConnection, uris: Iterable[str], storage: Storage) -> None:
    """Let DuckDB read these URIs through the same fsspec filesystems as everything else."""
    for uri in {scheme(uri): uri for uri in map(absolute, uris) if scheme(uri) != "file"}.values():
        fs, _ = storage.filesystem(uri)
        names = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
        if names[0] not in connection.list_filesystems():
            connection.register_filesystem(fs)
