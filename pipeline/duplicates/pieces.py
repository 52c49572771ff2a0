"""Rows divided into pieces by direction, so that only rows of one piece have to be compared.

k-means on a sample gives clusters, and each row goes to its three nearest ones: near rows on two sides of a border
then share a piece. Of the planted pairs in 400,000 vectors, 2.5 % share none with two clusters, and 0.4 % with
three. A cluster that is larger than a piece is divided again. So the work for a row hardly grows with the
number of rows.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.cluster.calls import Work
from pipeline.duplicates.pairs import unit

PIECE_ROWS = 16_384
"""Rows of the largest piece: 50 MB of 768-dimensional vectors in float32."""
CLUSTER_ROWS = 4_096
"""Rows of a cluster on average. Smaller ones lose pairs, larger ones take longer."""
MOST_CLUSTERS = 1_024
"""Clusters of one division, so that finding the nearest costs as much for any number of rows."""
SHARED = 3
"""Clusters that each row is in."""
SAMPLED = 64
"""Sampled rows for each cluster."""
ITERATIONS = 10
BLOCK_ROWS = 8_192
"""Rows whose nearest clusters one call finds."""
DIVIDED = 0.75
"""The share of the rows above which a cluster counts as not divided."""

F32 = NDArray[np.float32]
F16 = NDArray[np.float16]
I64 = NDArray[np.int64]


def pieces(vectors: F16, rows: I64, work: Work) -> Iterator[I64]:
    """Yield ascending row numbers, at most `PIECE_ROWS` at a time. `vectors` (N, D) holds those of all rows."""
    if len(rows) <= PIECE_ROWS:
        yield rows
        return
    for cluster in _clusters(vectors, rows, work):
        if len(cluster) <= DIVIDED * len(rows):
            yield from pieces(vectors, cluster, work)
        else:  # nearly all point in one direction: compare neighbours in the order of the files
            yield from np.array_split(cluster, -(-len(cluster) // PIECE_ROWS))


def nearest(vectors: F16, centroids: F32) -> NDArray[np.int32]:
    """Return the nearest centroids (C, D) of each vector (N, D), the nearest first: int32 (N, `SHARED`)."""
    cosines, rows = unit(vectors) @ centroids.T, np.arange(len(vectors))
    found = np.empty((len(vectors), SHARED), np.int32)
    for column in range(SHARED):
        found[:, column] = cosines.argmax(axis=1)
        cosines[rows, found[:, column]] = -np.inf
    return found


def _clusters(vectors: F16, rows: I64, work: Work) -> Iterator[I64]:
    """Yield the rows of each cluster, in ascending order. Each row is in `SHARED`."""
    centroids = _centroids(vectors, rows)
    starts = range(0, len(rows), BLOCK_ROWS)
    calls = ((vectors[rows[start : start + BLOCK_ROWS]], centroids) for start in starts)
    of_rows = np.concatenate(list(work.map(nearest, calls))).ravel()
    order = np.argsort(of_rows, kind="stable")
    ends = np.cumsum(np.bincount(of_rows, minlength=len(centroids)))
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        yield rows[order[start:end] // SHARED]


def _centroids(vectors: F16, rows: I64) -> F32:
    """Return unit centroids (C, D) by k-means on a sample of the rows. The same rows give the same centroids."""
    count = min(MOST_CLUSTERS, SHARED * len(rows) // CLUSTER_ROWS)
    rng = np.random.default_rng(len(rows))
    sampled = np.sort(rng.choice(len(rows), min(len(rows), SAMPLED * count), replace=False, shuffle=False))
    sample = unit(vectors[rows[sampled]])
    centroids = sample[np.sort(rng.choice(len(sample), count, replace=False))]
    for _ in range(ITERATIONS):
        of_rows = (sample @ centroids.T).argmax(axis=1)
        order = np.argsort(of_rows, kind="stable")
        held, starts = np.unique(of_rows[order], return_index=True)  # an empty cluster keeps its centroid
        sums = np.add.reduceat(sample[order], starts)
        centroids[held] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.float32(1e-12))
    return centroids
