"""The rows that came, changed or went since an earlier version, in the folders `upserts/` and `deletes/`.

A row that has changed and does not meet the condition (any more) is a delete. Whether it met the condition before
is not known, so a delete may name an id that the target does not have.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.errors import ConfigError, VersionGoneError, first_line
from pipeline.export.all_rows import folder_of
from pipeline.export.request import Format, Request
from pipeline.export.row_files import RowFiles, digits_for, kind_of
from pipeline.export.shapes import id_column, read_columns, shape
from pipeline.export.summary import DELETES, UPSERTS, Written
from pipeline.output import changed_files
from pipeline.output.changes import Changes, changes
from pipeline.output.reader import VIEW, PredictionsReader


def write(
    reader: PredictionsReader, request: Request, columns: list[str], since: int, out: str
) -> tuple[Written, Written]:
    """Write the upserts and the deletes.

    `reader` has all rows of its version. Raises: VersionGoneError if the version `since` cannot be read any more,
    ConfigError, TableError, StorageError.
    """
    if request.where is not None:
        reader.require_condition(request.where)
    upserts, deletes = Written(), Written()
    try:
        for folder, datasets in _folders(reader, request, since):
            with changes(reader, since, datasets=datasets, outcome=request.outcome) as found:
                written = _write_folder(found, reader, request, columns, out, folder)
            upserts += written[0]
            deletes += written[1]
    except VersionGoneError as error:
        raise VersionGoneError(f"{error} Export all rows: leave --since out, and load them anew.") from error
    return upserts, deletes


def _folders(reader: PredictionsReader, request: Request, since: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each folder of the export with its datasets, those that have no rows any more among them."""
    if not request.by_dataset:
        yield "", request.datasets
        return
    files = changed_files.find(reader, since, datasets=request.datasets, outcome=request.outcome)
    for dataset in sorted({file.dataset for file in (*files.new, *files.rewritten, *files.left)}):
        yield folder_of(dataset), (dataset,)


def _write_folder(
    found: Changes, reader: PredictionsReader, request: Request, columns: list[str], out: str, folder: str
) -> tuple[Written, Written]:
    below = f"/{folder}" if folder else ""
    deletes_to = Format.JSONL if request.to is Format.JSONL else Format.PARQUET
    with ExitStack() as opened:

        def row_files(to: Format, name: str, rows: int) -> RowFiles:
            digits = digits_for(-(-rows // request.rows_per_file))
            kind = kind_of(to, reader.storage)
            files = RowFiles(kind, out, f"{name}{below}", rows_per_file=request.rows_per_file, digits=digits)
            return opened.enter_context(files)

        upserts = row_files(request.to, UPSERTS, found.upserted)
        deletes = row_files(deletes_to, DELETES, found.upserted + found.deleted)
        shaped, id_name = shape(request, columns), id_column(request)
        for meets, other in _sorted(found, reader, request, columns):
            upserts.write(shaped(meets))
            deletes.write(_ids(other, id_name))
        for batch in found.deletes():
            deletes.write(_ids(batch, id_name))
    return upserts.written, deletes.written


def _sorted(
    found: Changes, reader: PredictionsReader, request: Request, columns: list[str]
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Yield batches of upserts, each as the rows that meet the condition and the others."""
    if request.where is None:
        for batch in found.upserts(read_columns(request, columns)):
            yield batch, batch.slice(0, 0)
        return
    with duckdb.connect() as connection:  # a condition may name any column
        connection.execute("SET TimeZone = 'UTC'")
        for batch in found.upserts():
            meets = _meets(connection, batch, request.where)
            yield batch.filter(meets), batch.filter(pc.invert(meets))


def _meets(connection: duckdb.DuckDBPyConnection, batch: pa.RecordBatch, where: str) -> pa.Array:
    """Return for each row whether it meets a condition. Raises: ConfigError if it cannot be evaluated."""
    connection.register(VIEW, pa.Table.from_batches([batch]))
    try:
        query = f"SELECT coalesce(({where}\n), false) AS meets FROM {VIEW}"
        return pa.table(connection.sql(query).to_arrow_table())["meets"].combine_chunks()
    except duckdb.Error as error:
        raise ConfigError(f"The condition {where!r} cannot be evaluated: {first_line(error)}.") from error


def _ids(batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([batch[schema.IMAGE_ID]], names=[name])
