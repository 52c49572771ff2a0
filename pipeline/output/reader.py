"""Read the committed predictions: the only SQL and Arrow over them.

A reader sees one version of the table, and exactly the files that its Delta log names. Dataset and outcome come
from the log, so dataset names that look like numbers or dates stay text. Columns and conditions go to Parquet.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pyarrow as pa

from pipeline import columns as column_names, schema
from pipeline.errors import ConfigError, TableError, first_line
from pipeline.output import column_types, label_views
from pipeline.output.layout import Layout
from pipeline.output.table import Predictions
from pipeline.output.visible_files import VisibleFile, holding
from pipeline.storage import sql
from pipeline.storage.filesystems import Storage

VIEW = "predictions"
"""The name of the rows in SQL conditions, which seldom need it."""
FILE = "_lakelens_file"
"""The column of a view with the position of a row's file in `PredictionsReader.files`, from 0."""
_ROWS = "_lakelens_rows"
_CHOSEN = "_lakelens_chosen"
BATCH_ROWS = 8_192
"""Rows of one batch: 25 MB of 768-dimensional embeddings."""
_QUERY_ERRORS = (duckdb.BinderException, duckdb.ParserException, duckdb.CatalogException)


@dataclass(frozen=True)
class Count:
    """How many rows of a dataset have an outcome; of failed rows, how many have an error code."""

    dataset: str
    outcome: str
    error_code: str | None
    rows: int


@dataclass(frozen=True)
class Failures:
    """Failed rows of one dataset, stage and code, and the uris of a few of them."""

    dataset: str
    stage: str
    error_code: str
    rows: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class PredictionsReader:
    """The rows of one version of the table. It can be pickled, so that tasks read some of its `files`.

    `table_id` tells an output from one that was made again at its place. `columns` are all columns of the table,
    and those of `schema.PREDICTIONS` if an older version made it. Rows older than a column are null there.
    The files with ok rows come first.
    """

    output: str
    storage: Storage
    table_id: str
    version: int
    columns: pa.Schema
    files: tuple[VisibleFile, ...]

    @classmethod
    def open(cls, output: str, storage: Storage) -> "PredictionsReader":
        """Read the newest version of an output's table. Raises: TableError, also if there is none."""
        return cls.of(Predictions.existing(output, storage))

    @classmethod
    def of(cls, table: Predictions) -> "PredictionsReader":
        """Read the version that a table object has seen."""
        files = sorted(
            table.visible_files(), key=lambda file: (file.outcome != schema.OK, file.dataset, file.path)
        )
        held = table.columns()
        columns = pa.schema([*held, *(field.remove_metadata() for field in schema.absent_columns(held))])
        return cls(table.output, table.storage, table.table_id, table.version, columns, tuple(files))

    @property
    def datasets(self) -> list[str]:
        """The names of the datasets that have rows, in alphabetical order."""
        return sorted({file.dataset for file in self.files})

    @property
    def uris(self) -> list[str]:
        """The URIs of the files."""
        layout = Layout(self.output)
        return [layout.fragment(file.path) for file in self.files]

    def only(self, datasets: Sequence[str] = (), outcome: str | None = None) -> "PredictionsReader":
        """Return a reader of these datasets and this outcome, which opens no other file. Empty means all.

        Raises: TableError for a dataset that has no rows, ConfigError for an outcome that is neither.
        """
        unknown = sorted(set(datasets) - set(self.datasets))
        if unknown:
            have = ", ".join(self.datasets) or "none"
            raise TableError(f"{self.output} has no dataset {unknown[0]!r}; it has {have}.")
        if outcome not in (None, schema.OK, schema.FAILED):
            raise ConfigError(f"outcome = {outcome!r} is neither {schema.OK!r} nor {schema.FAILED!r}.")
        chosen = [
            file
            for file in self.files
            if (not datasets or file.dataset in datasets) and outcome in (None, file.outcome)
        ]
        return replace(self, files=tuple(chosen))

    def part(self, first: int, end: int) -> "PredictionsReader":
        """Return a reader of the files from `first` up to `end`, for one of several tasks."""
        return replace(self, files=self.files[first:end])

    def require_condition(self, where: str) -> None:
        """Check an SQL condition without reading a row. Raises: ConfigError."""
        self.part(0, 0).count(where)

    def schema(self, columns: Sequence[str] | None = None) -> pa.Schema:
        """Return the fields of these columns, by default of all. `species.label` is the label of a head.

        Raises: TableError for an unknown column.
        """
        fields = dict(zip(self.columns.names, self.columns, strict=True))
        if columns is None:
            return self.columns
        for head in label_views.mentioned(columns, self.output, self.storage):
            fields |= label_views.fields(head)
        for name in columns:
            if name not in fields:
                near = column_names.near(name, self.columns.names)
                hint = f"did you mean {near!r}?" if near else f"it has {', '.join(fields)}."
                raise TableError(f"The predictions of {self.output} have no column {name!r}; {hint}")
        return pa.schema([fields[name] for name in columns])

    def counts(self) -> list[Count]:
        """Count the rows by dataset and outcome, and failed rows by error code. Raises: TableError, StorageError.

        Only the error codes are read from files, the rest is in the log.
        """
        ok = self.only(outcome=schema.OK)
        failed = self.only(outcome=schema.FAILED)._query(
            f"SELECT dataset, error_code, count(*) FROM {VIEW} GROUP BY ALL"
        )
        found = [Count(dataset, schema.OK, None, rows) for dataset, rows in ok._rows_by_dataset().items()]
        found += [Count(dataset, schema.FAILED, code, rows) for dataset, code, rows in failed]
        return sorted(found, key=lambda count: (count.dataset, count.outcome != schema.OK, count.error_code or ""))

    def count(self, where: str | None = None) -> int:
        """Count the rows that meet an SQL condition. Raises: ConfigError, TableError, StorageError."""
        ((rows,),) = self._query(f"SELECT count(*) FROM {VIEW} {_condition(where)}", where)
        return int(rows)

    def counts_by_file(self, where: str | None = None) -> list[int]:
        """Count the rows of each of `files` that meet an SQL condition. Raises: like `count`."""
        held = [file.rows for file in self.files]
        if where is None and None not in held:
            return [rows or 0 for rows in held]
        query = f"SELECT {FILE}, count(*) FROM {VIEW} {_condition(where)} GROUP BY {FILE}"
        found = dict(self._query(query, where))
        return [found.get(position, 0) for position in range(len(held))]

    def failures(self, examples: int) -> list[Failures]:
        """Count the failed rows by dataset, stage and code, most first, each with up to `examples` uris.

        Raises: TableError, StorageError.
        """
        found = self.only(outcome=schema.FAILED)._query(
            f"SELECT dataset, stage, error_code, count(*) AS rows, min(uri, {examples}) FROM {VIEW} "
            "GROUP BY ALL ORDER BY rows DESC, dataset, stage, error_code"
        )
        return [Failures(dataset, stage, code, rows, tuple(uris)) for dataset, stage, code, rows, uris in found]

    def batches(
        self,
        columns: Sequence[str] | None = None,
        *,
        where: str | None = None,
        image_ids: pa.ChunkedArray | None = None,
        order_by: Sequence[str] = (),
        batch_rows: int = BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        """Read the rows that meet an SQL condition, up to `batch_rows` at a time, with the fields of `schema`.

        With `image_ids`, which are strings, only rows with these ids are read. Raises: TableError for an unknown
        column or a file that cannot be read, ConfigError for a condition that is not SQL, StorageError.
        """
        fields = self.schema(columns)
        order = f"ORDER BY {', '.join(map(sql.quoted, order_by))}" if order_by else ""
        chosen = VIEW if image_ids is None else f"{VIEW} SEMI JOIN {_CHOSEN} USING ({schema.IMAGE_ID})"
        query = f"SELECT {_list(fields.names)} FROM {chosen} {_condition(where)} {order}"
        # A condition may ask about rows of other files.
        read = self if image_ids is None or where else replace(self, files=holding(self.files, image_ids))
        with read._connection(where, fields.names) as connection:
            if image_ids is not None:
                connection.register(_CHOSEN, pa.table({schema.IMAGE_ID: image_ids}))
                # DuckDB takes the files for one row, and would hold all their rows to look up the ids.
                connection.execute("SET disabled_optimizers = 'build_side_probe_side'")
            for batch in connection.sql(query).to_arrow_reader(batch_rows):
                yield batch.cast(fields)

    def to_arrow(self, columns: Sequence[str] | None = None, *, where: str | None = None) -> pa.Table:
        """Read the rows that meet an SQL condition. Raises: like `batches`."""
        return pa.Table.from_batches(list(self.batches(columns, where=where)), self.schema(columns))

    def sample(self, rows: int, seed: int, columns: Sequence[str], *, where: str | None = None) -> pa.Table:
        """Draw rows that meet an SQL condition, as many of each dataset as of any other, as far as it has them.

        The same seed draws the same rows. They are ordered by image_id. Raises: like `batches`.
        """
        drawn = f"hash(image_id, {seed})"
        chosen = f"""SELECT image_id FROM (
                SELECT image_id, {drawn} AS drawn,
                    row_number() OVER (PARTITION BY dataset ORDER BY {drawn}) AS place
                FROM {VIEW} {_condition(where)} QUALIFY place <= {rows}
            ) ORDER BY place, drawn LIMIT {rows}"""
        fields = self.schema(columns)
        query = f"SELECT {_list(fields.names)} FROM {VIEW} WHERE image_id IN ({chosen}) ORDER BY image_id"
        with self._connection(where, columns) as connection:
            return connection.sql(query).to_arrow_table().cast(fields)

    def create_view(self, connection: duckdb.DuckDBPyConnection, name: str = VIEW) -> None:
        """Create or replace a view of the rows: every column of the table, and `FILE`. Raises: StorageError."""
        stored = [field for field in self.columns if field.name not in schema.PARTITIONS]
        kinds = column_types.duckdb_types(stored)
        if not self.files:
            nulls = kinds | dict.fromkeys(schema.PARTITIONS, column_types.TEXT) | {FILE: "UBIGINT"}
            empty = ", ".join(f"NULL::{kind} AS {sql.quoted(column)}" for column, kind in nulls.items())
            connection.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT {empty} WHERE false")
            return
        sql.register_stores(connection, self.uris, self.storage)
        datasets = sql.literals(file.dataset for file in self.files)
        first_failed = sum(file.outcome == schema.OK for file in self.files)
        connection.execute(
            f"CREATE OR REPLACE VIEW {name} AS SELECT {_list(kinds)}, file_index AS {FILE}, "
            f"{datasets}[file_index::BIGINT + 1] AS {schema.DATASET}, "
            f"if(file_index < {first_failed}, '{schema.OK}', '{schema.FAILED}') AS {schema.OUTCOME} "
            # Given the schema, DuckDB need not compare the footers of all files, and a file may lack columns.
            f"FROM read_parquet({sql.files(self.uris)}, hive_partitioning = false, "
            f"schema = {_parquet_schema(kinds)})"
        )

    def _rows_by_dataset(self) -> dict[str, int]:
        if any(file.rows is None for file in self.files):  # maintenance by others may leave statistics out
            return dict(self._query(f"SELECT dataset, count(*) FROM {VIEW} GROUP BY ALL"))
        found = dict.fromkeys(self.datasets, 0)
        for file in self.files:
            found[file.dataset] += file.rows or 0
        return found

    def _query(self, query: str, where: str | None = None) -> list[tuple[Any, ...]]:
        with self._connection(where) as connection:
            return connection.execute(query).fetchall()

    @contextmanager
    def _connection(
        self, where: str | None = None, columns: Sequence[str] = ()
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with the view `VIEW`, which has the labels of the heads that are mentioned.

        Raises: ConfigError for a bad condition, otherwise TableError.
        """
        try:
            with duckdb.connect() as connection:
                connection.execute("SET TimeZone = 'UTC'")
                heads = label_views.mentioned([where or "", *columns], self.output, self.storage)
                self.create_view(connection, _ROWS if heads else VIEW)
                if heads:
                    label_views.create_view(connection, VIEW, _ROWS, heads, self.output, self.storage)
                yield connection
        except duckdb.Error as error:
            first = first_line(error)
            if where is not None and isinstance(error, _QUERY_ERRORS):
                raise ConfigError(f"The condition {where!r} cannot be evaluated: {first}.") from error
            raise TableError(
                f"Cannot read {Layout(self.output).predictions}: {first}. If a compaction has just replaced "
                "files, read again."
            ) from error


def _list(names: Sequence[str] | dict[str, str]) -> str:
    return ", ".join(map(sql.quoted, names))


def _condition(where: str | None) -> str:
    return "" if where is None else f"WHERE ({where}\n)"  # a comment at its end ends there


def _parquet_schema(kinds: dict[str, str]) -> str:
    """The columns for DuckDB's Parquet reader, by name; one that a file lacks is null."""
    columns = (
        f"{sql.literal(name)}: {{name: {sql.literal(name)}, type: {sql.literal(kind)}, default_value: NULL}}"
        for name, kind in kinds.items()
    )
    return f"MAP {{{', '.join(columns)}}}"
