"""The ok rows of one version and their vectors, in a temporary folder: what a search for duplicates reads again.

DuckDB holds what is about a row, and spills to disk. The vectors are a file of float16, which is their precision.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import schema
from pipeline.errors import TableError, first_line
from pipeline.output.reader import PredictionsReader
from pipeline.storage import sql, temporary_folders

MEMORY_GB = 1.0
"""What DuckDB may use, in 10^9 bytes. It spills to disk beyond that."""
_READ = (schema.IMAGE_ID, schema.DATASET, "content_sha256", "width", "height", "embedding")
_ROWS = """CREATE TABLE lake_rows AS SELECT row, image_id, dataset,
    md5_number(content_sha256) AS content, coalesce(width::BIGINT * height, 0) AS area FROM batch"""
_COPIES = """CREATE TABLE copies AS SELECT row, node FROM lake_rows JOIN (
    SELECT content, arg_min(row, image_id) AS node FROM lake_rows WHERE content IS NOT NULL
    GROUP BY content HAVING count(*) > 1) USING (content)"""


@dataclass(frozen=True)
class LakeRows:
    """Rows with numbers from 0, and their vectors, float16 (N, D).

    The table `lake_rows` has row, image_id, dataset, content (a hash of the bytes, or null) and area (pixels).
    `copies` has each row whose file is there twice or more, with the row that stands for all of them, its node. A
    row that is not there is its own node.
    """

    connection: duckdb.DuckDBPyConnection
    vectors: NDArray[np.float16]

    def searched(self) -> NDArray[np.int64]:
        """Return the rows that are compared by vector: one for each file, in ascending order."""
        found = self.connection.execute(
            "SELECT row FROM lake_rows ANTI JOIN (SELECT row FROM copies WHERE row <> node) USING (row) "
            "ORDER BY row"
        )
        return np.asarray(found.fetchnumpy()["row"], np.int64)


@contextmanager
def read(reader: PredictionsReader, folder: Path, on_progress: Callable[[int, int], None]) -> Iterator[LakeRows]:
    """Read all ok rows into a folder. `on_progress` receives the rows that are read, and their number.

    Raises: TableError if a row has no vector or one of another dimension, or DuckDB fails inside the context;
    StorageError.
    """
    ok = reader.only(outcome=schema.OK)
    with duckdb.connect(str(folder / "duplicates.db")) as connection:
        connection.execute(f"SET memory_limit = '{MEMORY_GB * 1e9:.0f} B'")
        connection.execute(f"SET temp_directory = {sql.literal(str(folder / 'spilled'))}")
        try:
            vectors = _read(ok, connection, folder / "vectors.f16", on_progress)
            connection.execute(_COPIES)
            yield LakeRows(connection, vectors)
        except duckdb.Error as error:
            raise TableError(f"Cannot find the duplicates of {reader.output}: {first_line(error)}.") from error
        except OSError as error:
            raise temporary_folders.write_error(folder, error) from error


def _read(
    ok: PredictionsReader,
    connection: duckdb.DuckDBPyConnection,
    file: Path,
    on_progress: Callable[[int, int], None],
) -> NDArray[np.float16]:
    connection.register("batch", _numbered(pa.RecordBatch.from_pylist([], ok.schema(_READ)), 0))
    connection.execute(_ROWS)
    rows, total, dim = 0, ok.count(), 0
    with file.open("wb") as written:
        for batch in ok.batches(_READ):
            vectors = _vectors(batch, dim or None, ok.output)
            dim = vectors.shape[1]
            vectors.astype(np.float16).tofile(written)
            connection.register("batch", _numbered(batch, rows))
            connection.execute(_ROWS.replace("CREATE TABLE lake_rows AS", "INSERT INTO lake_rows"))
            rows += batch.num_rows
            on_progress(rows, total)
    if not rows:
        return np.empty((0, 1), np.float16)
    return np.memmap(file, np.float16, mode="r", shape=(rows, dim))


def _numbered(batch: pa.RecordBatch, first: int) -> pa.Table:
    """Return the columns of a batch without its vectors, with row numbers from `first`."""
    numbers = pa.array(np.arange(first, first + batch.num_rows))
    return pa.Table.from_batches([batch]).drop_columns(["embedding"]).append_column("row", numbers)


def _vectors(batch: pa.RecordBatch, dim: int | None, output: str) -> NDArray[np.float32]:
    """Return the vectors of a batch, float32 (rows, D). D is the greatest one if it is not given."""
    held = batch["embedding"]
    lengths = pc.fill_null(pc.list_value_length(held), 0)
    dim = dim or int(pc.max(lengths).as_py()) or 1
    if (row := pc.not_equal(lengths, dim).index(True).as_py()) >= 0:
        name = batch[schema.IMAGE_ID][row].as_py()
        raise TableError(f"The row {name!r} of {output} has no vector of {dim} numbers.")
    vectors: NDArray[np.float32] = held.flatten().to_numpy().reshape(len(held), dim)
    return vectors
