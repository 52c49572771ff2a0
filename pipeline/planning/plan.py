"""The pending rows of a manifest, counted and then written as Parquet files. No Ray, and no image is opened.

A run, a resume and a backfill are the same difference, manifest − committed. It takes two passes over the
manifest: one groups the ids of both sides, which decides every row's fate; one takes the pending rows. DuckDB
spills to disk, so a plan of any size stays within its memory limit. It does not know who claims the table.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.column_names import ORDINAL, PROBLEM, REPLACES, SELECTED
from pipeline.config import ManifestConfig, PlanningConfig
from pipeline.errors import ConfigError, ManifestError, MovedError, StorageError, TableError, first_line
from pipeline.output import column_types, space
from pipeline.output.table import Predictions
from pipeline.planning import difference, manifest, relation
from pipeline.planning.manifest import InputReport
from pipeline.planning.selection import NEW_AND_CHANGED, Selection
from pipeline.storage import sql, temporary_folders
from pipeline.storage.filesystems import Storage, failure
from pipeline.storage.uris import join

PENDING_FILE_ROWS = 262_144
"""Rows of one pending file, which are in memory while it is written: some tens of MB."""
PENDING_FILE_BYTES = 1 << 28
"""Or fewer rows, if they have so many bytes: a data: URI holds a whole image."""
PENDING_BATCH_ROWS = 2_048
"""Rows that DuckDB returns at once."""
PENDING_GROUP_ROWS = 65_536
"""Rows of one row group: what one read task takes."""


class Plan:
    """What a run has to do: an account whose `left` rows are the pending ones.

    `problems` counts the invalid rows by reason; `first_invalid` has the place of the first such row. `listing`
    says what was listed for the plan. `lines` are sentences about that, and about values that are read in another
    way than the manifest's author may expect. `kept` has the kept columns with the types that the table has or
    gets.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        selection: Selection,
        table: Predictions | None,
        report: InputReport,
    ) -> None:
        self._connection, self._limit = connection, selection.limit
        self.listing, self.lines = report.listing, [*report.listing.lines, *report.notes]
        self.account, invalid = difference.count_fates(connection)
        self.problems = {found.reason: found.rows for found in invalid}
        self.first_invalid = {found.reason: report.place(found.first) for found in invalid}
        fitted = _fit_kept_columns(connection, table)
        self.kept, self._kept_values = fitted.fields, fitted.values

    @property
    def pending(self) -> int:
        """The number of rows to process: those that are left, up to the limit."""
        left = self.account.total.left
        return left if self._limit is None else min(left, self._limit)

    def write_pending(self, folder: str, storage: Storage) -> list[str]:
        """Write the pending rows as Parquet files below a URI, and return their URIs.

        The rows are ordered by dataset, so that an output file holds few datasets, and then by the file whose
        rows they replace, so that this file is rewritten about once. Raises: StorageError, ManifestError if the
        manifest has changed.
        """
        fs, root = storage.filesystem(folder)
        uris, written = [], 0
        try:
            fs.makedirs(root, exist_ok=True)
            for number, rows in enumerate(self._pending_rows()):
                name = f"{number:05}.parquet"
                with fs.open(f"{root}/{name}", "wb") as file:
                    pq.write_table(rows, file, compression="zstd", row_group_size=PENDING_GROUP_ROWS)
                uris.append(join(folder, name))
                written += rows.num_rows
        except duckdb.Error:
            raise
        except Exception as error:
            raise failure(error, folder) from error
        if written != self.pending:
            raise ManifestError(
                f"The manifest changed while LakeLens read it: {self.pending:,} pending rows were counted, and "
                f"{written:,} are there now; run again."
            )
        return uris

    def _pending_rows(self) -> Iterator[pa.Table]:
        """Yield the pending rows in order, those of one file at a time."""
        columns = pa.schema([*schema.PENDING, *self.kept])
        values = [sql.quoted(name) for name in schema.PENDING.names]
        values += [f"{value} AS {sql.quoted(name)}" for name, value in self._kept_values.items()]
        # Two queries: each one can spill, but a join and a sort in one query need their memory at the same time.
        self._connection.execute(f"CREATE TABLE pending AS SELECT {ORDINAL}, {', '.join(values)} FROM due")
        names = ", ".join(map(sql.quoted, columns.names))
        rows = self._connection.sql(
            f"SELECT {names} FROM pending ORDER BY dataset, {REPLACES}, {ORDINAL} LIMIT {self.pending}"
        )
        batches, count, size = list[pa.RecordBatch](), 0, 0
        for batch in rows.to_arrow_reader(PENDING_BATCH_ROWS):
            batches.append(batch)
            count, size = count + batch.num_rows, size + batch.nbytes
            if count >= PENDING_FILE_ROWS or size >= PENDING_FILE_BYTES:
                yield pa.Table.from_batches(batches).cast(columns)
                batches, count, size = [], 0, 0
        if count:
            yield pa.Table.from_batches(batches).cast(columns)


@contextmanager
def open_plan(
    config: ManifestConfig,
    storage: Storage,
    table: Predictions | None,
    selection: Selection = NEW_AND_CHANGED,
    limits: PlanningConfig | None = None,
    *,
    id_format: int = space.FORMAT,
) -> Iterator[Plan]:
    """Read the manifest and subtract what the table holds.

    `id_format` is the output's format, which decides the ids: see `space.FORMAT`. The plan can be written while
    the context lasts. Raises: ManifestError, StorageError, TableError, ConfigError; MovedError if the table has
    changed since it was opened.
    """
    limits = limits or PlanningConfig()
    try:
        with temporary_folders.folder() as scratch, duckdb.connect(scratch / "plan.duckdb") as connection:
            connection.execute(f"SET memory_limit = '{limits.memory_gb * 1e9:.0f} B'")
            connection.execute(f"SET temp_directory = {sql.literal(str(scratch / 'spilled'))}")
            connection.execute("SET preserve_insertion_order = false")  # the pending rows are sorted
            planner = _Planner(connection, config, storage, table, selection, scratch, id_format)
            yield manifest.retry_with_text_checks(planner.plan)
    except duckdb.OutOfMemoryException as error:
        if "max_temp_directory_size" in str(error):  # DuckDB spills up to the free space that it finds at first
            raise StorageError(
                "Planning needs more space in the temporary folder than there is. Set TMPDIR to a folder on a "
                f"larger disk, or raise planning.memory_gb, which is {limits.memory_gb:g}."
            ) from error
        raise ConfigError(
            f"Planning needs more memory than planning.memory_gb = {limits.memory_gb:g}; raise it."
        ) from error
    except duckdb.Error as error:
        raise relation.unreadable(error, config) from error


@dataclass(frozen=True)
class _Planner:
    """The inputs of one plan, and the steps from them to the plan."""

    connection: duckdb.DuckDBPyConnection
    config: ManifestConfig
    storage: Storage
    table: Predictions | None
    selection: Selection
    scratch: Path
    id_format: int

    def plan(self, check_text: bool) -> Plan:
        """Read the manifest and the table, and find every row's fate. See `manifest.create_input`."""
        report = manifest.create_input(
            self.connection,
            self.config,
            self.storage,
            self.scratch,
            self.selection.where,
            id_format=self.id_format,
            check_text=check_text,
        )
        if not check_text:
            self._read_kept_text()
        with _name_unreadable_table(self.table):
            difference.register_committed(self.connection, self.table, self.selection)
            difference.find_fates(self.connection, self.selection)
        return Plan(self.connection, self.selection, self.table, report)

    def _read_kept_text(self) -> None:
        """Read the text that is kept, to find what DuckDB cannot read before a run claims the table."""
        rows = self.connection.sql("FROM input LIMIT 0")
        types = dict(zip(rows.columns, map(str, rows.types), strict=True))
        texts = [sql.quoted(name) for name in self.config.keep if types[name] == "VARCHAR"]
        if texts:
            lengths = ", ".join(f"max(strlen({text}))" for text in texts)
            self.connection.execute(f"SELECT {lengths} FROM input")


@contextmanager
def _name_unreadable_table(table: Predictions | None) -> Iterator[None]:
    """Tell a file of the table that cannot be read from one of the manifest.

    Raises: TableError for such a file, or MovedError if the table has a newer version by now.
    """
    try:
        yield
    except duckdb.Error as error:
        if table is None or not any(uri in str(error) for uri in table.files()):
            raise
        kind = TableError if table.is_newest() else MovedError
        raise kind(f"Cannot read the predictions: {first_line(error)}.") from error


def _fit_kept_columns(
    connection: duckdb.DuckDBPyConnection, table: Predictions | None
) -> column_types.KeptColumns:
    """Give the kept columns of `due` the types that the table has for them. Raises: ManifestError."""
    columns = connection.sql("SELECT * FROM input LIMIT 0").to_arrow_table().schema
    known = {*schema.PENDING.names, ORDINAL, PROBLEM, SELECTED}
    kept = [field for field in columns if field.name not in known]
    held, output = (schema.kept(table.columns()), table.output) if table else ([], "")
    return column_types.fit_kept_columns(connection, kept, held, output)
