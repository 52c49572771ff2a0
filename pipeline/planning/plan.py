"""manifest − committed = pending, by DuckDB, as Parquet files: no Ray, no image is opened.

Resume and backfill are this same difference. Two passes over the manifest: one groups the ids of both sides, which
tells every row's fate, one takes the rows that are pending. DuckDB spills to disk, so that a plan of any size
needs no more memory than it is given. It does not know who claims the table.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.config import ManifestConfig, PlanningConfig
from pipeline.errors import ConfigError, ManifestError, MovedError, TableError, first_line
from pipeline.output import column_types, reader, space
from pipeline.output.reader import PredictionsReader
from pipeline.output.table import Predictions
from pipeline.planning import manifest, relation
from pipeline.planning.account import Account, Counts
from pipeline.storage import sql, temporary_folders
from pipeline.storage.filesystems import Storage, failure
from pipeline.storage.uris import join

PENDING_FILE_ROWS = 262_144
"""Rows of one pending file, and of what is in memory while it is written: some tens of MB."""
PENDING_GROUP_ROWS = 65_536
"""Rows of one row group: what one read task takes."""


@dataclass(frozen=True)
class Selection:
    """Which manifest rows a run is for: those that the output lacks or holds of another version, or with `failed`
    those that it holds as failed.

    Empty `codes` and `datasets` mean all of them; `where` is an SQL condition on manifest columns; at most `limit`
    rows are processed.
    """

    failed: bool = False
    codes: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    where: str | None = None
    limit: int | None = None


MISSING = Selection()


class Plan:
    """What is to be done: an account whose `left` rows are the pending ones.

    `listing` is what was listed for it; `lines` say that, and what is read in another way than the manifest's
    author may think.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        selection: Selection,
        table: Predictions | None,
        read: manifest.Read,
    ) -> None:
        self._connection = connection
        self.listing, self.lines = read.listing, [*read.listing.lines, *read.notes]
        self._limit = selection.limit
        self.account, self.problems = _counted(connection)
        columns = connection.sql("SELECT * FROM input LIMIT 0").to_arrow_table().schema
        known = {*schema.PENDING.names, schema.ORDINAL, schema.PROBLEM, schema.SELECTED}
        ours = [field for field in columns if field.name not in known]
        held, output = (table.kept_columns(), table.output) if table else ([], "")
        fitted = column_types.fitted(connection, ours, held, output)
        self.kept, self._values = fitted.fields, fitted.values
        """The kept columns as the table has them, or is to have them."""

    @property
    def pending(self) -> int:
        """Rows to process: those that are left, up to the limit."""
        left = self.account.total.left
        return left if self._limit is None else min(left, self._limit)

    def write_pending(self, folder: str, storage: Storage) -> list[str]:
        """Write the pending rows as Parquet files below a URI; returns their URIs.

        They are ordered by dataset, so that an output file holds few of them, and by the file that they replace
        rows of, so that it is rewritten seldom. Raises: StorageError, ManifestError if the manifest has changed.
        """
        pending = pa.schema([*schema.PENDING, *self.kept])
        columns = ", ".join(map(sql.quoted, pending.names))
        values = [sql.quoted(name) for name in schema.PENDING.names]
        values += [f"{value} AS {sql.quoted(name)}" for name, value in self._values.items()]
        # One after the other: each can spill, but a join and a sort in one query want their memory at once.
        self._connection.execute(f"CREATE TABLE pending AS SELECT {schema.ORDINAL}, {', '.join(values)} FROM due")
        rows = self._connection.sql(
            f"SELECT {columns} FROM pending ORDER BY dataset, {schema.REPLACES}, {schema.ORDINAL} "
            f"LIMIT {self.pending}"
        ).to_arrow_reader(PENDING_FILE_ROWS)
        fs, root = storage.filesystem(folder)
        uris, count = [], 0
        try:
            fs.makedirs(root, exist_ok=True)
            for number, batch in enumerate(rows):
                name = f"{number:05}.parquet"
                with fs.open(f"{root}/{name}", "wb") as file:
                    table = pa.Table.from_batches([batch]).cast(pending)
                    pq.write_table(table, file, compression="zstd", row_group_size=PENDING_GROUP_ROWS)
                uris.append(join(folder, name))
                count += batch.num_rows
        except duckdb.Error:
            raise
        except Exception as error:
            raise failure(error, folder) from error
        if count != self.pending:
            raise ManifestError("The manifest has changed while it was read; run again.")
        return uris


@contextmanager
def plan(
    config: ManifestConfig,
    storage: Storage,
    table: Predictions | None,
    selection: Selection = MISSING,
    limits: PlanningConfig | None = None,
    *,
    id_format: int = space.FORMAT,
) -> Iterator[Plan]:
    """Read the manifest and subtract what the table holds, or what it does not hold as failed.

    `id_format` is the format of the output, whose rules default ids are made by: see `space.FORMAT`.
    The plan can be written for as long as the context lasts. Raises: ManifestError, StorageError, TableError,
    ConfigError.
    """
    limits = limits or PlanningConfig()
    try:
        with temporary_folders.folder() as room, duckdb.connect(room / "plan.duckdb") as connection:
            connection.execute(f"SET memory_limit = '{limits.memory_gb * 1e9:.0f} B'")
            connection.execute(f"SET temp_directory = {sql.literal(str(room / 'spilled'))}")
            connection.execute("SET preserve_insertion_order = false")  # what is written is sorted
            made = partial(_made, connection, config, storage, table, selection, room, id_format)
            yield manifest.read_text_twice(made)
    except duckdb.OutOfMemoryException as error:
        raise ConfigError(
            f"Planning needs more memory than planning.memory_gb = {limits.memory_gb:g}; raise it."
        ) from error
    except duckdb.Error as error:
        raise relation.unreadable(error, config) from error


def _made(
    connection: duckdb.DuckDBPyConnection,
    config: ManifestConfig,
    storage: Storage,
    table: Predictions | None,
    selection: Selection,
    room: Path,
    id_format: int,
    suspect: bool,
) -> Plan:
    """Read the manifest and the table, and find every row's fate.

    Kept text is read, too: what DuckDB cannot read is to be found before a run claims the table.
    """
    read = manifest.create_input(
        connection, config, storage, room, selection.where, id_format=id_format, suspect=suspect
    )
    rows = connection.sql("FROM input LIMIT 0")
    kinds = dict(zip(rows.columns, map(str, rows.types), strict=True))
    texts = [sql.quoted(name) for name in config.keep if kinds[name] == "VARCHAR"]
    if texts and not suspect:
        connection.execute(f"SELECT {', '.join(f'max(strlen({text}))' for text in texts)} FROM input")
    with _told_apart(table):
        _read_committed(connection, table, selection)
        _find_fates(connection, selection)
    return Plan(connection, selection, table, read)


def _read_committed(
    connection: duckdb.DuckDBPyConnection, table: Predictions | None, selection: Selection
) -> None:
    """Create the view `committed` of the rows that the table holds, and the table `files` of their files.

    A row's `file` is the number of its file, whose `path` is below the predictions table. Its `tries` are null
    unless it is a failed row that is selected.
    """
    committed = PredictionsReader.of(table) if table else None
    connection.execute(
        "CREATE OR REPLACE TABLE files AS "
        "SELECT unnest(range(len($paths::VARCHAR[]))) AS file, unnest($paths::VARCHAR[]) AS path",
        {"paths": [file.path for file in committed.files] if committed else []},
    )
    if committed is None:
        connection.execute(f"CREATE OR REPLACE VIEW committed AS SELECT {_NOTHING_COMMITTED} WHERE false")
        return
    committed.create_view(connection, "predictions")
    chosen = f"{schema.OUTCOME} = '{schema.FAILED}'" if selection.failed else "false"
    if selection.codes:
        chosen += f" AND error_code IN ({', '.join(map(sql.literal, selection.codes))})"
    connection.execute(
        f"CREATE OR REPLACE VIEW committed AS SELECT image_id, {reader.FILE} AS file, version, "
        f"CASE WHEN {chosen} THEN coalesce(attempts, 0)::INTEGER END AS tries FROM predictions"
    )


_NOTHING_COMMITTED = "NULL::VARCHAR AS image_id, 0::UBIGINT AS file, NULL::VARCHAR AS version, 0::INTEGER AS tries"


_FATE = "_lakelens_fate"
_KEY = "md5_number(image_id)"
"""Ids are compared by 128 bits: a third of the memory and half the time of comparing them as text."""
_VERSION = "CASE WHEN version IS NULL THEN 0 ELSE hash(version) END"
_FIRST = f"({schema.ORDINAL}::UHUGEINT << 64) | ({_VERSION})::UHUGEINT"
"""A row's ordinal and, below it, its version: the least of an id's is that of its first row, version and all."""
_DUE = {
    False: "file IS NULL OR (version <> held AND version <> 0 AND held <> 0)",
    True: "tries IS NOT NULL",
}
"""Which of the first valid rows of their ids are to be processed, without and with `Selection.failed`."""
_FIRSTS = f"""
CREATE OR REPLACE TABLE firsts AS SELECT {schema.ORDINAL}, file, tries, {{due}} AS due FROM (
    SELECT (min(first) >> 64)::BIGINT AS {schema.ORDINAL}, max(file) AS file, max(tries) AS tries,
        (min(first) & 18446744073709551615::UHUGEINT)::UBIGINT AS version, max(held) AS held FROM (
        SELECT {_KEY} AS key, {_FIRST} AS first, NULL::UINTEGER AS file, NULL::UBIGINT AS held,
            NULL::INTEGER AS tries FROM input WHERE {schema.PROBLEM} IS NULL
        UNION ALL
        SELECT {_KEY}, NULL, file::UINTEGER, {_VERSION}, tries FROM committed
    ) GROUP BY key HAVING min(first) IS NOT NULL
)
"""


@contextmanager
def _told_apart(table: Predictions | None) -> Iterator[None]:
    """A file of the table that cannot be read: TableError, or MovedError if the table is newer by now."""
    try:
        yield
    except duckdb.Error as error:
        if table is None or not any(uri in str(error) for uri in table.files()):
            raise
        kind = TableError if table.is_newest() else MovedError
        raise kind(f"Cannot read the predictions: {first_line(error)}.") from error


def _find_fates(connection: duckdb.DuckDBPyConnection, selection: Selection) -> None:
    """Table `firsts`: the first valid row of every id, and whether it is due. View `fates`: the manifest's rows,
    each with its column of the account."""
    connection.execute(_FIRSTS.format(due=_DUE[selection.failed]))
    connection.execute(
        f"""CREATE OR REPLACE VIEW fates AS SELECT dataset, {schema.PROBLEM}, CASE
            WHEN {schema.PROBLEM} IS NOT NULL THEN 'invalid'
            WHEN firsts.{schema.ORDINAL} IS NULL THEN 'duplicates'
            WHEN firsts.due AND {_asked(selection)} THEN 'left'
            WHEN firsts.file IS NULL THEN 'not_selected'
            ELSE 'already_done' END AS {_FATE}
        FROM input LEFT JOIN firsts USING ({schema.ORDINAL})"""
    )
    connection.execute(
        f"""CREATE OR REPLACE VIEW due AS
        SELECT input.*, firsts.tries AS {schema.TRIES}, files.path AS {schema.REPLACES}
        FROM input JOIN (FROM firsts WHERE due) AS firsts USING ({schema.ORDINAL})
        LEFT JOIN files ON files.file = firsts.file WHERE {_asked(selection)}"""
    )


def _asked(selection: Selection) -> str:
    """The condition that a row is asked for."""
    if not selection.datasets:
        return schema.SELECTED
    return f"({schema.SELECTED} AND dataset IN ({', '.join(map(sql.literal, selection.datasets))}))"


def _counted(connection: duckdb.DuckDBPyConnection) -> tuple[Account, dict[str, int]]:
    """The account, and why rows are invalid and how many are, the most frequent reason first."""
    counted: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    problems: dict[str, int] = defaultdict(int)
    for dataset, fate, problem, rows in connection.execute(
        f"SELECT dataset, {_FATE}, {schema.PROBLEM}, count(*) FROM fates GROUP BY ALL"
    ).fetchall():
        counted[dataset][fate] += rows
        if problem is not None:
            problems[problem] += rows
    account = {dataset: Counts(input=sum(rows.values()), **rows) for dataset, rows in sorted(counted.items())}
    return Account(account), dict(sorted(problems.items(), key=lambda item: (-item[1], item[0])))
