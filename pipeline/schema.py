"""Every Arrow schema, in the order in which the data meets them, with the names of their columns.

    manifest  ->  PENDING  ->  decoded(...)  ->  PREDICTIONS

It does not know where any of it is stored.
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
"""Of an ordinal: the row's number in its manifest file, from 0; the file's number is above. That leaves 7e10 rows
a file and 134 million files."""

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
"""One row for each image still to be processed; the kept columns follow."""

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
"""What `Decoder` adds to a pending row, besides the pixels."""

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
"""The output table: every processed image is exactly one row. Units: pixels, UTC microseconds."""

PARTITIONS = (DATASET, OUTCOME)
"""The Hive folders of the output, outermost first; they are not repeated inside the files."""

PIXELS_TYPE = pa.large_binary()
"""An RGB image at the model's input size, uint8 (height, width, 3) row-major; null for a failed row."""


def predictions(kept_columns: Sequence[pa.Field] = ()) -> pa.Schema:
    """The output table's schema with the kept manifest columns at its end."""
    return pa.schema([*PREDICTIONS, *kept_columns])


_LATER = "lakelens.later"
"""Marks a column that a table has got after rows were written."""


def kept(table: pa.Schema) -> list[pa.Field]:
    """The columns that a table has beyond `PREDICTIONS`."""
    return [field for field in table if field.name not in PREDICTIONS.names]


def lacking(table: pa.Schema) -> list[pa.Field]:
    """The columns of `PREDICTIONS` that a table of an older version lacks; its rows are null there."""
    absent = [field for field in PREDICTIONS if field.name not in table.names]
    return [field.with_nullable(True).with_metadata({_LATER: "true"}) for field in absent]


def is_uneven(table: pa.Schema) -> bool:
    """Whether files of a table may lack columns of `PREDICTIONS`."""
    return any(_LATER.encode() in (field.metadata or {}) for field in table)


def missing(table: pa.Schema, kept_columns: Sequence[pa.Field], uri: str) -> pa.Schema:
    """The columns that a table is to get before rows with these kept columns are written to it.

    Raises: TableError for one that it has with another type.
    """
    have = {field.name.casefold(): field for field in kept(table)}
    for field in kept_columns:
        held = have.get(field.name.casefold(), field)
        if (held.name, held.type) != (field.name, field.type):
            raise TableError(
                f"The kept column {field.name!r} is {field.type} in the manifest, but {uri} has {held.name!r} as "
                f"{held.type}; rename it in the manifest, or choose another output.path."
            )
    added = [field for field in kept_columns if field.name.casefold() not in have]
    return pa.schema([*lacking(table), *added])


def scored(kept_columns: Sequence[pa.Field]) -> pa.Schema:
    """What `Predictor` gives: output rows, and the table's files whose rows they replace."""
    return pa.schema([*predictions(kept_columns), PENDING.field(REPLACES)])


def fragment(table: pa.Schema) -> pa.Schema:
    """Schema of the Parquet files of a table or of scored rows: all but what the folders and the log say."""
    return pa.schema([field for field in table if field.name not in (*PARTITIONS, REPLACES)])
