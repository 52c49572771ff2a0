"""Export the failed rows of an output."""

import tempfile
from pathlib import Path

import pyarrow.csv as pc
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.errors import ConfigError
from pipeline.output.reader import Failures, PredictionsReader
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


def count_failures(output: str, storage: Storage) -> list[Failures]:
    """Count the failed rows by dataset, stage and code, most first. Raises: TableError, StorageError."""
    return PredictionsReader.open(output, storage).failures(EXAMPLES)


def export(output: str, out: str, storage: Storage) -> int:
    """Write the failed rows to a .parquet or .csv file on any store, and return how many they are.

    Raises: ConfigError for another ending, TableError, StorageError.
    """
    writers = {".parquet": pq.ParquetWriter, ".csv": pc.CSVWriter}
    make_writer = writers.get(Path(out).suffix.lower())
    if make_writer is None:
        raise ConfigError(f"--export {out} must end in .parquet or .csv.")
    failed = PredictionsReader.open(output, storage).only(outcome=schema.FAILED)
    rows = failed.batches(EXPORTED, order_by=(schema.DATASET, schema.IMAGE_ID), batch_rows=EXPORT_ROWS)
    count = 0
    with tempfile.NamedTemporaryFile(prefix="lakelens-export-") as scratch:
        with make_writer(scratch.name, failed.schema(EXPORTED)) as writer:
            for batch in rows:
                writer.write_batch(batch)
                count += batch.num_rows
        storage.upload(Path(scratch.name), out)
    return count
