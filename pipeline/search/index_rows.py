"""Rows of the predictions as rows of the index: some columns, and the vector in half the space."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import schema
from pipeline.errors import TableError
from pipeline.output.reader import PredictionsReader
from pipeline.search.index_lance import IndexFolder

EMBEDDING = "embedding"
COLUMNS = (schema.IMAGE_ID, schema.DATASET, schema.URI, "label", "score", "width", "height")
"""The columns of every index. The vector follows, behind the columns that the user has chosen in addition."""
ROUNDING = 1e-3
"""How far the length of a unit vector can be from 1 after its values are rounded to float16."""
TASK_BYTES = 256 * 1024**2
"""Size of the files of predictions that one task reads; a larger file is read by a task of its own."""


def index_schema(reader: PredictionsReader, columns: Sequence[str], dim: int) -> pa.Schema:
    """Return the schema of the index: `columns`, and the vector as D float16. Raises: TableError."""
    vector = pa.field(EMBEDDING, pa.list_(pa.float16(), dim))
    return pa.schema([*reader.schema(columns), vector])


def index_rows(batches: Iterable[pa.RecordBatch], fields: pa.Schema) -> pa.RecordBatchReader:
    """Turn ok rows, with the columns of the index, into rows of the index, as they are read.

    Vectors get unit length, so that all distances are cosines. Raises: TableError for a vector of another length.
    """
    return pa.RecordBatchReader.from_batches(fields, _converted(batches, fields))


def write_rows(reader: PredictionsReader, fields: pa.Schema, folder: IndexFolder) -> list[object]:
    """Write the ok rows of a reader as fragments of a new index. A task for any machine. Raises: TableError."""
    return folder.write(index_rows(reader.batches(fields.names), fields), anew=True)


def unit_vectors(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Return vectors (N, D) with unit length, as float32. Rounded unit vectors and zeros stay as they are."""
    lengths = lengths_of(vectors.astype(np.float32))[:, None]
    keep = (lengths == 0) | (np.abs(lengths - 1) < ROUNDING)
    return np.asarray(vectors / np.where(keep, 1, lengths), np.float32)


def lengths_of(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the lengths of vectors (N, D), as float32 (N,)."""
    return np.asarray(np.sqrt(np.einsum("nd,nd->n", vectors, vectors)), np.float32)


def matrix(vectors: pa.FixedSizeListArray) -> NDArray[np.float32]:
    """Return the vectors of an index as float32 (N, D)."""
    values = vectors.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values.reshape(len(vectors), vectors.type.list_size), np.float32)


def parts(reader: PredictionsReader) -> list[PredictionsReader]:
    """Cut a reader into readers of some files each, for tasks."""
    cut, size = [0], 0
    for place, file in enumerate(reader.files):
        if size and size + file.size > TASK_BYTES:
            cut.append(place)
            size = 0
        size += file.size
    ends = [*cut[1:], len(reader.files)]
    return [reader.part(first, end) for first, end in zip(cut, ends, strict=True)]


def _converted(batches: Iterable[pa.RecordBatch], fields: pa.Schema) -> Iterator[pa.RecordBatch]:
    dim = fields.field(EMBEDDING).type.list_size
    for batch in batches:
        values = batch[EMBEDDING].flatten().to_numpy(zero_copy_only=False)
        if len(values) != batch.num_rows * dim:
            raise TableError(
                f"Among the rows up to {batch[schema.IMAGE_ID][-1]} are vectors that do not have {dim} numbers."
            )
        halves = unit_vectors(values.reshape(-1, dim)).astype(np.float16)
        held = pa.FixedSizeListArray.from_arrays(pa.array(halves.ravel()), dim)
        others = [batch[name] for name in fields.names if name != EMBEDDING]
        yield pa.record_batch([*others, held], schema=fields)
