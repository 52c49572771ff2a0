"""Every Arrow schema in the order of the data, with the names of their columns.

    manifest  ->  PENDING  ->  PENDING + DECODED  ->  PREDICTIONS

It does not know where the rows are stored.
"""

from collections.abc import Sequence

import pyarrow as pa

from pipeline.column_names import (  # every name, so that `schema.URI` goes with `schema.PENDING`
    BYTES as BYTES,
    CARRIED_IN as CARRIED_IN,
    DATASET as DATASET,
    FAILED as FAILED,
    IMAGE_ID as IMAGE_ID,
    LENGTH as LENGTH,
    OFFSET as OFFSET,
    OK as OK,
    ORDINAL as ORDINAL,
    OUTCOME as OUTCOME,
    PIXELS as PIXELS,
    PROBLEM as PROBLEM,
    REPLACES as REPLACES,
    RESERVED as RESERVED,
    ROW as ROW,
    SELECTED as SELECTED,
    SOURCE as SOURCE,
    TRIES as TRIES,
    UNREADABLE as UNREADABLE,
    URI as URI,
    VERSION as VERSION,
)
from pipeline.errors import TableError

ROW_BITS = 36
"""Bits of an ordinal for the row's number in its manifest file, from 0. The file's number is in the bits above:
that allows 7e10 rows a file, and 134 million files."""

PENDING = pa.schema(
    [
        pa.field(IMAGE_ID, pa.string(), nullable=False),
        pa.field(URI, pa.string(), nullable=False),
        pa.field(DATASET, pa.string(), nullable=False),
        pa.field(VERSION, pa.string()),
        pa.field(OFFSET, pa.int64()),
        pa.field(LENGTH, pa.int64()),
        pa.field(CARRIED_IN, pa.string()),
        pa.field(ROW, pa.int64()),
        pa.field(TRIES, pa.int32()),
        pa.field(REPLACES, pa.string()),
    ]
)
"""One row for each image to process; the kept columns follow."""

DECODED = pa.schema(
    [
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("content_sha256", pa.string()),
        pa.field("decode_notes", pa.list_(pa.string())),
        pa.field("stage", pa.string()),
        pa.field("error_code", pa.string()),
        pa.field("message", pa.string()),
        pa.field("attempts", pa.int32()),
    ]
)
"""The columns that `Decoder` adds to a pending row, in addition to the pixels."""

LABELS = pa.list_(
    pa.struct([pa.field("label", pa.string()), pa.field("score", pa.float32()), pa.field("index", pa.int32())])
)

PREDICTIONS = pa.schema(
    [
        pa.field(IMAGE_ID, pa.string(), nullable=False),
        pa.field(URI, pa.string(), nullable=False),
        pa.field(DATASET, pa.string(), nullable=False),
        pa.field(OUTCOME, pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("labels", LABELS),
        pa.field("embedding", pa.list_(pa.float32())),
        pa.field("embedding_norm", pa.float32()),
        *DECODED,
        pa.field(VERSION, pa.string()),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("finished_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
"""The output table: every processed image is exactly one row. `width` and `height` are in pixels, times in UTC."""

PARTITIONS = (DATASET, OUTCOME)
"""The Hive folders of the output, outermost first; they are not repeated inside the files."""

PIXELS_TYPE = pa.large_binary()
"""An RGB image at the model's input size, uint8 (height, width, 3) row-major; null for a failed row."""


def predictions(kept_columns: Sequence[pa.Field] = ()) -> pa.Schema:
    """Return the schema of the output table: `PREDICTIONS`, then the kept manifest columns."""
    return pa.schema([*PREDICTIONS, *kept_columns])


_LATER = "lakelens.later"
"""Metadata of a column that a table got after rows had been written."""


def kept(table: pa.Schema) -> list[pa.Field]:
    """Return the columns that a table has in addition to `PREDICTIONS`."""
    return [field for field in table if field.name not in PREDICTIONS.names]


def absent_columns(table: pa.Schema) -> list[pa.Field]:
    """Return the columns of `PREDICTIONS` that an older version's table lacks; its rows are null there."""
    absent = [field for field in PREDICTIONS if field.name not in table.names]
    return [field.with_nullable(True).with_metadata({_LATER: "true"}) for field in absent]


def is_uneven(table: pa.Schema) -> bool:
    """Return whether files of a table may lack columns of `PREDICTIONS`."""
    return any(_LATER.encode() in (field.metadata or {}) for field in table)


def columns_to_add(table: pa.Schema, kept_columns: Sequence[pa.Field], uri: str) -> pa.Schema:
    """Return the columns that a table needs before rows with these kept columns are written to it.

    `uri` is the table, for messages. Raises: TableError for a kept column that the table has with another type.
    """
    have = {field.name.casefold(): field for field in kept(table)}
    for field in kept_columns:
        held = have.get(field.name.casefold(), field)
        if (held.name, held.type) != (field.name, field.type):
            raise TableError(
                f"The kept column {field.name!r} is {field.type} in the manifest, but {held.name!r} is "
                f"{held.type} in {uri}; rename the column in the manifest, or choose another output.path."
            )
    added = [field for field in kept_columns if field.name.casefold() not in have]
    return pa.schema([*absent_columns(table), *added])


def scored(kept_columns: Sequence[pa.Field]) -> pa.Schema:
    """Return the schema of what `Predictor` returns: output rows, and the files whose rows they replace."""
    return pa.schema([*predictions(kept_columns), PENDING.field(REPLACES)])


def fragment(table: pa.Schema) -> pa.Schema:
    """Return the schema of Parquet files: the columns of a table or of scored rows, without `PARTITIONS` and
    `REPLACES`, which the folders and the log hold."""
    return pa.schema([field for field in table if field.name not in (*PARTITIONS, REPLACES)])
