"""Decoded rows and what the model made of them -> output rows, as Arrow and as Parquet.

Pure: it knows no model and no device.
"""

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import schema
from pipeline.errors import ErrorCode, Stage

_DICTIONARY = ["label", "stage", "error_code", "message", "run_id", "decode_notes.list.element"]
_DICTIONARY += ["labels.list.element.label", "labels.list.element.index"]
_SPLIT = ["embedding.list.element", "labels.list.element.score", "score", "embedding_norm"]
ROW_GROUP_ROWS = 8_192
"""Rows of a row group: 25 MB of 768-dimensional embeddings, and several groups a file for parallel readers."""


class PredictionRowBuilder:
    """Collects the results of a block's decoded images, in order, and makes the output rows."""

    def __init__(self, rows: pa.Table, labels: Sequence[str], *, normalize: bool) -> None:
        """`rows` with the columns of `schema.PENDING`, `schema.DECODED` and the kept ones."""
        self.decoded = np.flatnonzero(pc.is_null(rows.column("error_code")).to_numpy())
        """Indices of the rows that have pixels: `add` expects results for these, in this order."""
        self._rows = rows
        self._labels = pa.array(labels, pa.string())
        self._normalize = normalize
        self._results: list[tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]] = []
        self._place: list[int | None] = [None] * rows.num_rows
        self._errors: dict[int, tuple[ErrorCode, str]] = {}
        self._seen = 0
        self._kept = 0

    def add(
        self, indices: NDArray[np.int32], scores: NDArray[np.float32], embeddings: NDArray[np.float32]
    ) -> None:
        """Results of the next B decoded images: (B, k), (B, k), (B, D); non-finite ones become failed rows."""
        vectors, norms = self._vectors(embeddings)
        finite = np.isfinite(vectors).all(axis=1) & np.isfinite(norms) & np.isfinite(scores).all(axis=1)
        for good in finite:
            row = self._next()
            if good:
                self._place[row] = self._kept
                self._kept += 1
            else:
                self._errors[row] = (
                    ErrorCode.NON_FINITE,
                    "the model gave a vector or score that is not finite",
                )
        self._results.append((indices[finite], scores[finite], np.column_stack([vectors, norms])[finite]))

    def add_failed(self, code: ErrorCode, message: str) -> None:
        """The next decoded image could not be predicted."""
        self._errors[self._next()] = (code, message)

    def table(self, run_id: str) -> pa.Table:
        """The output rows, with the schema `schema.scored(kept)`, in the order of the input."""
        rows = self._with_errors()
        place = pa.array(self._place, pa.int64())
        columns = {name: array.take(place) for name, array in self._columns().items()}
        count = rows.num_rows
        ok = pc.is_null(rows.column("error_code"))
        columns[schema.OUTCOME] = pc.if_else(ok, schema.OK, schema.FAILED)
        columns["run_id"] = pa.repeat(run_id, count)
        columns["finished_at"] = pa.repeat(pa.scalar(datetime.now(UTC), pa.timestamp("us", tz="UTC")), count)
        known = {*schema.PREDICTIONS.names, *schema.PENDING.names}
        target = schema.scored([field for field in rows.schema if field.name not in known])
        return pa.table(
            [columns[f.name] if f.name in columns else rows.column(f.name) for f in target], schema=target
        )

    def _next(self) -> int:
        row = int(self.decoded[self._seen])
        self._seen += 1
        return row

    def _vectors(self, embeddings: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Embeddings at float16 precision, (B, D), and what they were divided by, (B,), both float32."""
        norms = np.ones(len(embeddings), np.float32)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if self._normalize:
                norms = np.linalg.norm(embeddings, axis=1).astype(np.float32)
            return (embeddings / norms[:, None]).astype(np.float16).astype(np.float32), norms

    def _columns(self) -> dict[str, pa.Array]:
        """The columns of the finite results, densely, in order."""
        if not self._results:
            names = ("label", "score", "labels", "embedding", "embedding_norm")
            return {name: pa.array([], schema.PREDICTIONS.field(name).type) for name in names}
        indices, scores, vectors = (np.concatenate(arrays) for arrays in zip(*self._results, strict=True))
        names = self._labels.take(pa.array(indices.ravel()))
        top = pa.StructArray.from_arrays(
            [names, pa.array(scores.ravel()), pa.array(indices.ravel())],
            fields=list(schema.LABELS.value_type),
        )
        return {
            "label": self._labels.take(pa.array(indices[:, 0])),
            "score": pa.array(scores[:, 0]),
            "labels": _lists(top, scores.shape, schema.LABELS),
            "embedding": _lists(pa.array(vectors[:, :-1].ravel()), vectors[:, :-1].shape, pa.list_(pa.float32())),
            "embedding_norm": pa.array(np.ascontiguousarray(vectors[:, -1])),
        }

    def _with_errors(self) -> pa.Table:
        """The decoded rows with the stage, code and message of failed predictions filled in."""
        rows = self._rows
        if not self._errors:
            return rows
        for position, name in enumerate(("stage", "error_code", "message")):
            column = rows.column(name).to_pylist()
            for row, (code, message) in self._errors.items():
                column[row] = (Stage.PREDICT.value, code.value, message)[position]
            rows = rows.set_column(rows.column_names.index(name), rows.field(name), pa.array(column, pa.string()))
        return rows


def _lists(values: pa.Array, shape: tuple[int, ...], kind: pa.DataType) -> pa.Array:
    """(B, n) values as B lists of n."""
    offsets = np.arange(0, (shape[0] + 1) * shape[1], shape[1] or 1, dtype=np.int32)[: shape[0] + 1]
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=kind)


def parquet_writer(file: Path | BinaryIO, columns: pa.Schema) -> pq.ParquetWriter:
    """A writer of one Parquet file, for `ROW_GROUP_ROWS` rows at a time.

    Embeddings are byte-stream-split before zstd: 44 % of their raw size, without loss.
    """
    return pq.ParquetWriter(
        file,
        columns,
        compression="zstd",
        use_dictionary=_DICTIONARY,
        column_encoding=dict.fromkeys(_SPLIT, "BYTE_STREAM_SPLIT"),
    )


def parquet_bytes(rows: pa.Table) -> bytes:
    """One Parquet file, as `parquet_writer` writes it."""
    buffer = io.BytesIO()
    with parquet_writer(buffer, rows.schema) as writer:
        writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)
    return buffer.getvalue()
