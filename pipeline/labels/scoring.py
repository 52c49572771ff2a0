"""Vectors to labels and scores. Pure: this module reads and writes nothing."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import schema
from pipeline.labels.head import Head

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Scored:
    """The best k classes of N vectors, best first: `indices` int32 (N, k) and `scores` float32 (N, k)."""

    indices: NDArray[np.int32]
    scores: F32


def vectors_of(rows: pa.RecordBatch | pa.Table) -> tuple[F32, F32]:
    """Return the embeddings (N, D) and norms (N,) of rows with the columns `embedding` and `embedding_norm`.

    A row of an older output may have no norm; then it is 1.
    """
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    column = table["embedding"].combine_chunks()
    lists = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    vectors = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), -1).astype(np.float32, copy=False)
    norms = table["embedding_norm"].to_numpy().astype(np.float32)
    return vectors, np.nan_to_num(norms, nan=1.0)


def inputs(head_input: str, vectors: F32, norms: F32) -> F32:
    """Return the vectors that a head takes: of length 1, or as the model gave them. A zero vector stays zero."""
    if head_input == "raw":
        return vectors * norms[:, None]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def logits(head: Head, vectors: F32, norms: F32) -> F32:
    """Return float32 (N, C). Scaling the weights and not the products saves a pass over them."""
    weight = head.weight * np.float32(head.description.scale)
    found: F32 = inputs(head.description.input, vectors, norms) @ weight.T + head.bias
    return found


def probabilities(kind: str, values: F32) -> F32:
    """Turn logits (N, C) into scores (N, C)."""
    if kind == "sigmoid":
        halves: F32 = np.tanh(0.5 * values)  # exp would overflow
        return (0.5 * (1 + halves)).astype(np.float32)
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    found: F32 = powers / powers.sum(axis=1, keepdims=True)
    return found


def score(head: Head, vectors: F32, norms: F32, top_k: int) -> Scored:
    """Return the best `top_k` classes of vectors (N, D) with norms (N,), or all classes if there are fewer."""
    scores = probabilities(head.description.kind, logits(head, vectors, norms))
    count = min(top_k, scores.shape[1])
    best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    indices = np.take_along_axis(best, order, axis=1)
    return Scored(indices.astype(np.int32), np.take_along_axis(scores, indices, axis=1))


def columns(scored: Scored, names: pa.Array) -> dict[str, pa.Array]:
    """Return the Arrow columns `label`, `score` and `labels`; `names` are the head's labels."""
    rows, count = scored.scores.shape
    flat = pa.array(scored.indices.ravel())
    top = pa.StructArray.from_arrays(
        [names.take(flat), pa.array(scored.scores.ravel()), flat], fields=list(schema.LABELS.value_type)
    )
    offsets = pa.array(np.arange(0, rows * count + 1, count, dtype=np.int32))
    return {
        "label": names.take(pa.array(scored.indices[:, 0])),
        "score": pa.array(scored.scores[:, 0]),
        "labels": pa.ListArray.from_arrays(offsets, top, type=schema.LABELS),
    }
