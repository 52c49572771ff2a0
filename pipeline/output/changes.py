"""The rows that came, changed or left between two versions of the predictions table: upserts and deletes.

Data that is derived from the predictions stays fresh with them. Apply the deletes and the upserts by `image_id`,
and remember `Changes.version`. A compaction changes nothing, because it only moves rows.

Rows are compared only where a commit has rewritten a file. If a compaction has deleted the file that a row was in
before, a run that has committed before and after `since` is not told apart: its rows are upserts, whether they are
older or not. No change is ever missing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import duckdb
import pyarrow as pa

from pipeline import schema
from pipeline.errors import TableError, first_line
from pipeline.output import changed_files
from pipeline.output.changed_files import ChangedFiles
from pipeline.output.layout import Layout
from pipeline.output.reader import BATCH_ROWS, FILE, PredictionsReader
from pipeline.output.visible_files import VisibleFile
from pipeline.storage import sql, temporary_folders

MEMORY_GB = 1.0
"""What DuckDB may use to compare ids, in 10^9 bytes. It spills to disk beyond that."""
_ID_KEY = "md5_number(image_id) AS key"
"""Compare ids by 128 bits: that takes a third of the memory of comparing text."""
_ROW_KEY = "md5_number(concat_ws(' ', run_id, epoch_us(finished_at), image_id)) AS key"
"""Two rows with this key are one row in two files, because a run processes an image once."""


@dataclass(frozen=True)
class Changes:
    """The changes from the version `since` to the version `version`; both can be read as often as needed.

    `upserted` and `deleted` count them.
    """

    since: int | None
    version: int
    upserted: int
    deleted: int
    _reader: PredictionsReader
    _files: ChangedFiles
    _connection: duckdb.DuckDBPyConnection

    def upserts(
        self, columns: Sequence[str] | None = None, *, batch_rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Read the rows that are new or changed, up to `batch_rows` at a time, with the fields of `reader.schema`.

        Raises: TableError for an unknown column or a file that cannot be read, StorageError.
        """
        yield from _of(self._reader, self._files.new).batches(columns, batch_rows=batch_rows)
        for file, ids in self.rewritten():
            if len(ids):
                yield from _of(self._reader, (file,)).batches(columns, image_ids=ids, batch_rows=batch_rows)

    def rewritten(self) -> Iterator[tuple[VisibleFile, pa.ChunkedArray]]:
        """Return the files that hold older rows, too, each with the ids of its changed rows, as strings."""
        for number, file in enumerate(self._files.rewritten):
            found = self._connection.sql(f"SELECT image_id FROM upserted WHERE file = {number}")
            yield file, found.to_arrow_table()["image_id"]

    def deletes(self, *, batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Read the ids that are gone, up to `batch_rows` at a time: one column `image_id`.

        An id that came and left after `since` is among them.
        """
        with self._connection.cursor() as cursor:  # another query may run on the connection meanwhile
            for batch in cursor.sql("FROM deleted").to_arrow_reader(batch_rows):
                yield batch.cast(pa.schema([schema.PREDICTIONS.field(schema.IMAGE_ID)]))


@contextmanager
def changes(
    reader: PredictionsReader,
    since: int | None,
    *,
    datasets: Sequence[str] = (),
    outcome: str = schema.OK,
    memory_gb: float = MEMORY_GB,
) -> Iterator[Changes]:
    """Find what has changed from the version `since` to the reader's; None means from an empty table.

    Only rows of these datasets (empty means all) and this outcome count. A row that has left them is a delete: an
    image that was labelled before and fails now is one for the outcome "ok". Read the changes inside the context.
    Raises: VersionGoneError if the changes cannot be found any more, so that the derived data has to be made again
    from nothing; TableError, StorageError.
    """
    files = changed_files.find(reader, since, datasets=datasets, outcome=outcome)
    with temporary_folders.folder() as scratch, duckdb.connect(str(scratch / "changes.db")) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET memory_limit = '{memory_gb * 1e9:.0f} B'")
        connection.execute(f"SET temp_directory = {sql.literal(str(scratch / 'spilled'))}")
        try:
            _compare(connection, reader, files)
            upserted = _of(reader, files.new).count() + _rows(connection, "upserted")
            deleted = _rows(connection, "deleted")
        except duckdb.Error as error:
            raise TableError(
                f"Cannot compare two versions of {Layout(reader.output).predictions}: {first_line(error)}."
            ) from error
        yield Changes(since, reader.version, upserted, deleted, reader, files, connection)


def _compare(connection: duckdb.DuckDBPyConnection, reader: PredictionsReader, files: ChangedFiles) -> None:
    """Create `upserted`, with files and image_ids of changed rows of rewritten files, and `deleted`, with ids."""
    views = {"rewritten": files.rewritten, "earlier": files.earlier, "departed": files.left}
    views["arrived"] = (*files.new, *files.rewritten)
    for name, chosen in views.items():
        _of(reader, chosen).create_view(connection, name)
    runs = sql.literals(files.runs)
    connection.execute(
        f"""CREATE TABLE upserted AS SELECT file, image_id
        FROM (SELECT {FILE} AS file, image_id, {_ROW_KEY} FROM rewritten
            WHERE list_contains({runs}::VARCHAR[], run_id))
        ANTI JOIN (SELECT {_ROW_KEY} FROM earlier) USING (key)"""
    )
    connection.execute(
        f"""CREATE TABLE deleted AS SELECT DISTINCT image_id
        FROM (SELECT image_id, {_ID_KEY} FROM departed)
        ANTI JOIN (SELECT {_ID_KEY} FROM arrived) USING (key)"""
    )


def _of(reader: PredictionsReader, files: tuple[VisibleFile, ...]) -> PredictionsReader:
    return replace(reader, files=files)


def _rows(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    return connection.table(table).shape[0]
