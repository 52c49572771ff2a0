"""Recall: how many of the ten nearest rows a search finds. It decides how thoroughly searches look.

The queries are rows of the index, each of which has to find others than itself. Comparing a query with every row
shows which rows a search has missed. Of a large index, only some fragments are read. The rows missed in these
stand for those missed in the others.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.search.index_rows import EMBEDDING, lengths_of, matrix, unit_vectors

K = 10
QUERIES = 100
ENOUGH = 0.99
"""The recall from which on searches need not look more thoroughly."""
EFFORTS = ((8, 2), (8, 5), (16, 5), (32, 10), (64, 10), (128, 20), (256, 20))
"""Partitions that a search looks into, and candidates for each hit that it compares exactly."""
LIMIT_S = 60.0
"""Time after which no greater effort is tried."""
ROUNDED = 1e-4
"""Lance rounds queries to float16. A row that is nearer by less than this is not missed."""
TINY = 1e-6
"""Stands for the length of a vector of zeros."""
READ_BYTES = 2 * 1024**3
"""Vectors that are read to find missed rows: all of 1.4 million with 768 dimensions."""


@dataclass(frozen=True)
class Recall:
    """The share of the `K` nearest rows that searches with this effort have found, of `measured` queries."""

    nprobes: int
    refine: int
    recall: float
    measured: int


@dataclass(frozen=True)
class _Found:
    """Row ids (Q, K) and cosine distances (Q, K) of the nearest rows; −1 and infinity where there are none."""

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]


def measured(dataset: Any, nprobes: int = 0, refine: int = 0, *, seed: int = 0) -> Recall:
    """Find the least effort, from the given one on, that finds enough; the best one, if none does.

    Raises: what Lance raises.
    """
    rng = np.random.default_rng(seed)
    rows = dataset.count_rows()
    chosen = np.sort(rng.choice(rows, min(QUERIES, rows), replace=False))
    sample = dataset.take(chosen.tolist(), columns=[EMBEDDING, "_rowid"])
    queries = unit_vectors(matrix(sample[EMBEDDING].combine_chunks()))
    own = sample["_rowid"].to_numpy().astype(np.int64)
    true, share = _compared(dataset, queries, own, rng)
    deadline, best = time.monotonic() + LIMIT_S, None
    for effort in [effort for effort in EFFORTS if effort >= (nprobes, refine)] or [EFFORTS[-1]]:
        found = _searched(dataset, queries, own, *effort)
        recall = Recall(*effort, 1 - _missed(found, true, min(K, rows - 1)) / share, len(queries))
        best = recall if best is None or recall.recall > best.recall else best
        if best.recall >= ENOUGH or time.monotonic() > deadline:
            break
    assert best is not None
    return best


def _compared(
    dataset: Any, queries: NDArray[np.float32], own: NDArray[np.int64], rng: np.random.Generator
) -> tuple[_Found, float]:
    """Compare queries with every row of some fragments; return also the share of all rows that these have."""
    fragments = list(dataset.get_fragments())
    rows, size, some = 0, queries.shape[1] * 2, list[Any]()
    for place in rng.permutation(len(fragments)):
        if some and rows * size > READ_BYTES:
            break
        some.append(fragments[place])
        rows += some[-1].count_rows()
    best = _nothing(len(queries))
    scanner = dataset.scanner(columns=[EMBEDDING], with_row_id=True, fragments=some)
    for batch in scanner.to_batches():
        vectors = matrix(batch[EMBEDDING])
        distances = 1 - queries @ vectors.T / np.maximum(lengths_of(vectors), TINY)
        near = (distances < best.distances[:, -1:]).any(axis=0)
        distances, ids = distances[:, near], batch["_rowid"].to_numpy().astype(np.int64)[near]
        distances[own[:, None] == ids] = np.inf
        best = _nearest([best.ids, np.broadcast_to(ids, distances.shape)], [best.distances, distances])
    return best, rows / dataset.count_rows()


def _searched(
    dataset: Any, queries: NDArray[np.float32], own: NDArray[np.int64], nprobes: int, refine: int
) -> _Found:
    best = _nothing(len(queries))
    for place, query in enumerate(queries):
        near = {"column": EMBEDDING, "q": query, "k": K + 1, "nprobes": nprobes, "refine_factor": refine}
        hits = dataset.to_table(columns=["_distance"], with_row_id=True, nearest=near)
        ids, distances = hits["_rowid"].to_numpy().astype(np.int64), hits["_distance"].to_numpy()
        others = ids != own[place]
        count = min(K, int(others.sum()))
        best.ids[place, :count] = ids[others][:count]
        best.distances[place, :count] = distances[others][:count]
    return best


def _missed(found: _Found, true: _Found, k: int) -> float:
    """Return the share of the k nearest rows, of those that either has found, that the search has missed."""
    only_true = np.isfinite(true.distances) & ~(true.ids[:, :, None] == found.ids[:, None, :]).any(axis=2)
    distances = np.where(only_true, true.distances + ROUNDED, np.inf)
    origin = [np.zeros_like(found.ids), np.ones_like(true.ids)]
    both = _nearest(origin, [found.distances, distances])
    there = np.isfinite(both.distances[:, :k])
    return float((both.ids[:, :k] * there).sum() / max(1, there.sum()))


def _nearest(ids: Sequence[NDArray[Any]], distances: Sequence[NDArray[Any]]) -> _Found:
    """Return the K nearest of several sets of rows."""
    every = np.concatenate(distances, axis=1)
    order = np.argsort(every, axis=1, kind="stable")[:, :K]
    found = np.take_along_axis(np.concatenate(ids, axis=1), order, axis=1)
    return _Found(found, np.take_along_axis(every, order, axis=1))


def _nothing(queries: int) -> _Found:
    return _Found(np.full((queries, K), -1, np.int64), np.full((queries, K), np.inf, np.float32))
