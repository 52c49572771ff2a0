"""Outputs of made-up vectors, some of which are planted near duplicates of others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import schema
from pipeline.output.table import Predictions
from tests.support.making import STORAGE
from tests.support.outputs import ok_rows, written


def write_pictures(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One commit of ok rows. Each has `image_id` and `embedding`, and may have a dataset and other columns."""
    table = Predictions.create(str(path), STORAGE, [])
    epoch = table.claim("run", [])
    assert epoch is not None
    fragments = []
    for dataset in sorted({row.get("dataset", "street") for row in rows}):
        some = [row for row in rows if row.get("dataset", "street") == dataset]
        made = ok_rows([row["image_id"] for row in some], [row["embedding"] for row in some], {}, "u")
        unnamed = {"content_sha256": None}
        given = [
            old | unnamed | {name: row[name] for name in row if name not in (schema.DATASET,)}
            for old, row in zip(made.to_pylist(), some, strict=True)
        ]
        fragments.append(written(path, dataset, pa.Table.from_pylist(given, schema=made.schema), epoch))
    table.commit(fragments, "run", epoch)


def planted(rows: int, dim: int, pairs: int, farthest: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors, float32 (rows, dim), around some hundred centres, and the planted pairs, int64 (pairs, 2).

    The cosine distances of the planted pairs lie evenly between 0 and `farthest`.
    """
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, rows // 100), dim), np.float32)
    vectors = centres[rng.integers(len(centres), size=rows)] + rng.standard_normal((rows, dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places = rng.permutation(rows)[: 2 * pairs].reshape(-1, 2)
    towards = rng.standard_normal((pairs, dim), np.float32)
    near = vectors[places[:, 0]]
    towards -= (towards * near).sum(axis=1, keepdims=True) * near
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    cosines = 1 - rng.uniform(0, farthest, (pairs, 1)).astype(np.float32)
    vectors[places[:, 1]] = cosines * near + np.sqrt(1 - cosines**2) * towards
    return vectors, places
