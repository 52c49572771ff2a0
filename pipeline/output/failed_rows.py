"""The failed rows of an output: counted, with examples, and exported. It reads committed rows only; no Ray."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow.csv as pc
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.errors import ConfigError
from pipeline.output.fragment import is_of_failed
from pipeline.output.table import Predictions
from pipeline.storage import sql
from pipeline.storage.filesystems import Storage

EXPORTED = (
    *(schema.IMAGE_ID, schema.URI, schema.DATASET, schema.VERSION),
    *("stage", "error_code", "message", "attempts"),
)
"""Columns of an export; it can serve as a manifest."""
EXPORT_ROWS = 65_536
"""Rows of an export that are in memory at once."""
EXAMPLES = 3
"""Uris that are named for each dataset, stage and code."""


@dataclass(frozen=True)
class Failures:
    """Failed rows of one dataset, stage and code, and the uris of up to `EXAMPLES` of them."""

    dataset: str
    stage: str
    error_code: str
    rows: int
    examples: tuple[str, ...]


def counted(output: str, storage: Storage) -> list[Failures]:
    """Failed rows by dataset, stage and code, most first. Raises: TableError, StorageError."""
    with _failed(output, storage) as connection:
        found = connection.execute(
            f"SELECT dataset, stage, error_code, count(*) AS rows, min(uri, {EXAMPLES}) FROM failed "
            "GROUP BY ALL ORDER BY rows DESC, dataset, stage, error_code"
        ).fetchall()
    return [Failures(dataset, stage, code, rows, tuple(uris)) for dataset, stage, code, rows, uris in found]


def export(output: str, out: str, storage: Storage) -> int:
    """Write the failed rows to a .parquet or .csv file on any store; returns how many.

    Raises: ConfigError for another ending, TableError, StorageError.
    """
    writers = {".parquet": pq.ParquetWriter, ".csv": pc.CSVWriter}
    make_writer = writers.get(Path(out).suffix.lower())
    if make_writer is None:
        raise ConfigError(f"--export {out} must end in .parquet or .csv.")
    count = 0
    with _failed(output, storage) as connection, tempfile.NamedTemporaryFile(prefix="lakelens-export-") as scratch:
        query = f"SELECT {', '.join(EXPORTED)} FROM failed ORDER BY dataset, image_id"
        rows = connection.sql(query).to_arrow_reader(EXPORT_ROWS)
        with make_writer(scratch.name, rows.schema) as writer:
            for batch in rows:
                writer.write_batch(batch)
                count += batch.num_rows
        storage.upload(Path(scratch.name), out)
    return count


@contextmanager
def _failed(output: str, storage: Storage) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with a view `failed` of the newest committed version."""
    files = [uri for uri in Predictions.existing(output, storage).files() if is_of_failed(uri)]
    with duckdb.connect() as connection:
        if not files:
            connection.execute(f"CREATE VIEW failed AS SELECT {_NOTHING} WHERE false")
        else:
            sql.register_stores(connection, files, storage)
            connection.execute(
                f"CREATE VIEW failed AS FROM read_parquet({sql.files(files)}, union_by_name = true, "
                "hive_partitioning = true, hive_types = {'dataset': VARCHAR}) "
                f"UNION ALL BY NAME SELECT {_NOTHING} WHERE false"  # older files may lack some of the columns
            )
        yield connection


_NOTHING = ", ".join(f"NULL::{'INTEGER' if name == 'attempts' else 'VARCHAR'} AS {name}" for name in EXPORTED)
