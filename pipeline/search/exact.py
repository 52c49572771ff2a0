"""Exact search: queries are compared with every row, in bounded memory and without an index."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import schema
from pipeline.errors import TableError
from pipeline.output.reader import PredictionsReader

DISTANCE = "distance"
"""The column of the cosine distance, 1 − cos: 0 for the same direction, 1 at a right angle, 2 for the opposite."""
DECIMALS = 6
"""Distances are rounded to what float32 can tell apart. So equal vectors have equal distances in every batch."""
_FOUND = pa.schema([schema.PREDICTIONS.field(schema.IMAGE_ID), pa.field(DISTANCE, pa.float32())])
_ORDER = [(DISTANCE, "ascending"), (schema.IMAGE_ID, "ascending")]


def nearest(
    reader: PredictionsReader,
    vector: NDArray[np.float32],
    k: int,
    *,
    where: str | None = None,
    datasets: Sequence[str] = (),
    columns: Sequence[str] = (schema.IMAGE_ID,),
) -> pa.Table:
    """Return the k ok rows nearest to `vector`, float32 (D,), nearest first: `columns`, then `DISTANCE`.

    Rows at equal distance come in the order of their ids. `where` is an SQL condition on any column. Raises:
    TableError for an unknown column or dataset, or rows of another dimension; ConfigError for a condition that is
    not SQL; StorageError.
    """
    reader.schema(columns)
    (found,) = nearest_ids(reader, vector[np.newaxis], k, where=where, datasets=datasets)
    return with_columns(reader.only(datasets), found, columns)


def with_columns(reader: PredictionsReader, found: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return the ok rows of `found`, which has `image_id` and `DISTANCE`, in its order: `columns` and `DISTANCE`.

    Rows that the reader does not see are left out. Raises: as `nearest`.
    """
    names = list(dict.fromkeys([schema.IMAGE_ID, *columns]))
    ok = reader.only(outcome=schema.OK)
    batches = list(ok.batches(names, image_ids=found[schema.IMAGE_ID])) if found else []
    rows = pa.Table.from_batches(batches, ok.schema(names))
    seen = found.filter(pc.is_in(found[schema.IMAGE_ID], rows[schema.IMAGE_ID]))
    in_order = rows.take(pc.index_in(seen[schema.IMAGE_ID], rows[schema.IMAGE_ID]))
    return in_order.select(columns).append_column(DISTANCE, seen[DISTANCE])


def nearest_ids(
    reader: PredictionsReader,
    vectors: NDArray[np.float32],
    k: int,
    *,
    where: str | None = None,
    datasets: Sequence[str] = (),
) -> list[pa.Table]:
    """Return `image_id` and `DISTANCE` of the k ok rows nearest to each of `vectors`, float32 (Q, D), not zero.

    All queries share one pass over the rows. Memory grows with Q and k, and not with the rows. Raises: as
    `nearest`.
    """
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    best = [_FOUND.empty_table() for _ in units]
    for batch in reader.only(datasets, schema.OK).batches([schema.IMAGE_ID, "embedding"], where=where):
        distances = _distances(batch, units, reader.output)
        best = [_better(one, batch, row, k) for one, row in zip(best, distances, strict=True)]
    return best


def _distances(batch: pa.RecordBatch, units: NDArray[np.float32], output: str) -> NDArray[np.float32]:
    """Return cosine distances, float32 (Q, rows). A row of zeros is at a right angle to every query.

    Raises: TableError if a row has no vector, or one of another dimension.
    """
    held, dim = batch["embedding"], units.shape[1]
    wrong = pc.fill_null(pc.not_equal(pc.list_value_length(held), dim), True)
    if (row := wrong.index(True).as_py()) >= 0:
        raise TableError(
            f"The row {batch[schema.IMAGE_ID][row].as_py()!r} of {output} has no vector of {dim} numbers."
        )
    vectors = held.flatten().to_numpy().reshape(len(held), dim)
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    cosines = units @ vectors.T / np.where(lengths, lengths, 1)
    distances: NDArray[np.float32] = np.maximum(np.round(1 - cosines, DECIMALS), 0)
    return distances


def _better(best: pa.Table, batch: pa.RecordBatch, distances: NDArray[np.float32], k: int) -> pa.Table:
    """Return the k nearest of `best`, which is in order, and of a batch with its distances, float32 (rows,)."""
    limit = best[DISTANCE][-1].as_py() if best.num_rows == k else np.inf
    if k < len(distances):
        limit = min(limit, np.partition(distances, k - 1)[k - 1])
    near = np.flatnonzero(distances <= limit)
    if not len(near):
        return best
    found = [batch[schema.IMAGE_ID].take(pa.array(near)), pa.array(distances[near])]
    return pa.concat_tables([best, pa.table(found, schema=_FOUND)]).sort_by(_ORDER).slice(0, k)
