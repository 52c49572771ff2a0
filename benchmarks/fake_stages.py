"""Rows as a decoder and a predictor would give them, without images."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import schema
from pipeline.engines.base import Scored
from pipeline.output.prediction_rows import PredictionRowBuilder


def as_decoded(rows: pa.Table) -> pa.Table:
    """Add the columns of a decoder to pending rows, as nulls, but no pixels."""
    for field in schema.DECODED:
        rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows


def as_predicted(
    rows: pa.Table,
    classes: int,
    indices: NDArray[np.int32],
    scores: NDArray[np.float32],
    embeddings: NDArray[np.float32],
) -> pa.Table:
    """Turn decoded rows without pixels into predictions; `indices` and `scores` (B, k), `embeddings` (B, D)."""
    outputs = PredictionRowBuilder(rows, [str(number) for number in range(classes)], normalize=True)
    outputs.add(Scored(indices, scores, embeddings))
    return outputs.table("run")
