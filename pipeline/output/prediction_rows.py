"""Turn decoded rows and the results of the model into output rows, as Arrow and as Parquet.

Pure: this module knows no model and no device.
"""

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import schema
from pipeline.errors import ErrorCode, Stage

DICTIONARY = ["label", "stage", "error_code", "message", "run_id", "decode_notes.list.element"]
DICTIONARY += ["labels.list.element.label", "labels.list.element.index"]
SPLIT = ["embedding.list.element", "labels.list.element.score", "score", "embedding_norm"]
ROW_GROUP_ROWS = 8_192
"""Rows of a row group: 25 MB of 768-dimensional embeddings. A file has several groups, for parallel readers."""

PAGE_ROWS = 1_024
"""Rows of a page, at most: readers that know the page index read that many ids for one lookup."""


class ModelResults(Protocol):
    """What a model computes for B images: `indices` int32 (B, k) and `scores` float32 (B, k) of the best classes,
    and `embeddings` float32 (B, D).
    """

    @property
    def indices(self) -> NDArray[np.int32]: ...
    @property
    def scores(self) -> NDArray[np.float32]: ...
    @property
    def embeddings(self) -> NDArray[np.float32]: ...


class PredictionRowBuilder:
    """Collects the results of a block's decoded images, in order, and builds the output rows."""

    def __init__(self, rows: pa.Table, labels: Sequence[str], *, normalize: bool) -> None:
        """`rows` has the columns of `schema.PENDING` and `schema.DECODED`, and the kept columns."""
        self.decoded = np.flatnonzero(pc.is_null(rows.column("error_code")).to_numpy())
        """Indices of the rows that have pixels. Results are added for these rows, in this order."""
        self._rows = rows
        self._labels = pa.array(labels, pa.string())
        self._normalize = normalize
        self._results: list[tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]] = []
        self._place: list[int | None] = [None] * rows.num_rows
        self._errors: dict[int, tuple[ErrorCode, str]] = {}
        self._seen = 0
        self._kept = 0

    def add(self, results: ModelResults) -> None:
        """Add the results of the next B decoded images. A value that is not finite makes a failed row."""
        indices, scores, embeddings = results.indices, results.scores, results.embeddings
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
                    "the model returned a vector or score that is not finite",
                )
        self._results.append((indices[finite], scores[finite], np.column_stack([vectors, norms])[finite]))

    def add_failed(self, code: ErrorCode, message: str) -> None:
        """Record that the next decoded image could not be predicted."""
        self._errors[self._next()] = (code, message)

    def table(self, run_id: str) -> pa.Table:
        """Return the output rows in the order of the input, with the schema `schema.scored(kept)`."""
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
        """Return the embeddings rounded to float16, (B, D), and their norms, (B,), both as float32.

        The norms are 1 where embeddings are not normalized.
        """
        norms = np.ones(len(embeddings), np.float32)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if self._normalize:
                norms = np.linalg.norm(embeddings, axis=1).astype(np.float32)
            return (embeddings / norms[:, None]).astype(np.float16).astype(np.float32), norms

    def _columns(self) -> dict[str, pa.Array]:
        """Return the columns of the finite results, in order and without gaps."""
        if not self._results:
            names = ("label", "score", "labels", "embedding", "embedding_norm")
            return {name: pa.array([], schema.PREDICTIONS.field(name).type) for name in names}
        indices, scores, vectors = (np.concatenate(arrays) for arrays in zip(*self._results, strict=True))
        embeddings = {
            "embedding": _lists(pa.array(vectors[:, :-1].ravel()), vectors[:, :-1].shape, pa.list_(pa.float32())),
            "embedding_norm": pa.array(np.ascontiguousarray(vectors[:, -1])),
        }
        return self._label_columns(indices, scores) | embeddings

    def _label_columns(self, indices: NDArray[np.int32], scores: NDArray[np.float32]) -> dict[str, pa.Array]:
        """Labels and scores; nulls for a model without a head, which has no labels."""
        if not len(self._labels):
            names = ("label", "score", "labels")
            return {name: pa.nulls(len(indices), schema.PREDICTIONS.field(name).type) for name in names}
        names = self._labels.take(pa.array(indices.ravel()))
        top = pa.StructArray.from_arrays(
            [names, pa.array(scores.ravel()), pa.array(indices.ravel())],
            fields=list(schema.LABELS.value_type),
        )
        return {
            "label": self._labels.take(pa.array(indices[:, 0])),
            "score": pa.array(scores[:, 0]),
            "labels": _lists(top, scores.shape, schema.LABELS),
        }

    def _with_errors(self) -> pa.Table:
        """Return the decoded rows with the stage, code and message of failed predictions."""
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
    """Return (B, n) values as B lists of length n."""
    offsets = np.arange(0, (shape[0] + 1) * shape[1], shape[1] or 1, dtype=np.int32)[: shape[0] + 1]
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=kind)


def parquet_writer(file: Path | BinaryIO, columns: pa.Schema) -> pq.ParquetWriter:
    """Return a writer of one Parquet file, which takes up to `ROW_GROUP_ROWS` rows at a time.

    Embeddings are byte-stream-split before zstd: 44 % of their raw size, without loss.
    """
    return pq.ParquetWriter(
        file,
        columns,
        compression="zstd",
        use_dictionary=DICTIONARY,
        column_encoding=dict.fromkeys(SPLIT, "BYTE_STREAM_SPLIT"),
        write_page_index=True,
        max_rows_per_page=PAGE_ROWS,
    )


def parquet_bytes(rows: pa.Table, order: pa.Array | None = None) -> bytes:
    """Return rows as one Parquet file: all of them as they are, or those with these indices, in this order."""
    buffer = io.BytesIO()
    count = rows.num_rows if order is None else len(order)
    with parquet_writer(buffer, rows.schema) as writer:
        for start in range(0, count, ROW_GROUP_ROWS):
            if order is None:
                group = rows.slice(start, ROW_GROUP_ROWS)
            else:
                group = rows.take(order.slice(start, ROW_GROUP_ROWS))
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
    return buffer.getvalue()
