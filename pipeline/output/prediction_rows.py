"""Turn decoded rows and the results of the model into output rows, as Arrow and as Parquet.

Pure: this module knows no model and no device.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
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

_NO_FAILURE = -1


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
        self._results: _Results | None = None
        self._failures: list[tuple[ErrorCode, str]] = []
        self._failure_of = np.full(len(self.decoded), _NO_FAILURE)
        self._seen = 0

    def add(self, results: ModelResults) -> None:
        """Add the results of the next B decoded images. A value that is not finite makes a failed row."""
        if self._results is None:
            self._results = _Results.empty(len(self.decoded), results)
        first, end = self._seen, self._seen + len(results.embeddings)
        finite = self._results.set(first, end, results, normalize=self._normalize)
        if not finite.all():
            self._failure_of[first:end][~finite] = len(self._failures)
            self._failures.append(
                (ErrorCode.NON_FINITE, "the model returned a vector or score that is not finite")
            )
        self._seen = end

    def add_failed(self, code: ErrorCode, message: str) -> None:
        """Record that the next decoded image could not be predicted."""
        self._failure_of[self._seen] = len(self._failures)
        self._failures.append((code, message))
        self._seen += 1

    def table(self, run_id: str) -> pa.Table:
        """Return the output rows in the order of the input, with the schema `schema.scored(kept)`."""
        rows = self._with_errors()
        count = rows.num_rows
        columns = self._in_place(self._columns())
        ok = pc.is_null(rows.column("error_code"))
        columns[schema.OUTCOME] = pc.if_else(ok, schema.OK, schema.FAILED)
        columns["run_id"] = pa.repeat(run_id, count)
        columns["finished_at"] = pa.repeat(pa.scalar(datetime.now(UTC), pa.timestamp("us", tz="UTC")), count)
        known = {*schema.PREDICTIONS.names, *schema.PENDING.names}
        target = schema.scored([field for field in rows.schema if field.name not in known])
        return pa.table(
            [columns[f.name] if f.name in columns else rows.column(f.name) for f in target], schema=target
        )

    def _in_place(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """Return columns of the decoded rows as columns of all rows, null where a row failed."""
        good = self._failure_of == _NO_FAILURE
        if good.all() and len(good) == self._rows.num_rows:
            return columns
        place = np.zeros(self._rows.num_rows, np.int64)
        place[self.decoded] = np.arange(len(good))
        failed = np.ones(self._rows.num_rows, np.bool_)
        failed[self.decoded] = ~good
        indices = pa.array(place, mask=failed)
        return {name: array.take(indices) for name, array in columns.items()}

    def _columns(self) -> dict[str, pa.Array]:
        """Return the columns of the model for the decoded rows."""
        found = self._results
        if found is None:
            names = ("label", "score", "labels", "embedding", "embedding_norm")
            return {name: pa.nulls(len(self.decoded), schema.PREDICTIONS.field(name).type) for name in names}
        kind = schema.PREDICTIONS.field("embedding").type
        embeddings = {
            "embedding": _lists(pa.array(found.vectors.ravel()), found.vectors.shape, kind),
            "embedding_norm": pa.array(found.norms),
        }
        return self._label_columns(found.indices, found.scores) | embeddings

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
        if not self._failures:
            return rows
        failed = self._failure_of != _NO_FAILURE
        mask = np.zeros(rows.num_rows, np.bool_)
        mask[self.decoded[failed]] = True
        which = pa.array(self._failure_of[failed])
        codes, messages = zip(*self._failures, strict=True)
        values = {
            "stage": pa.repeat(Stage.PREDICT.value, len(which)),
            "error_code": pa.array([code.value for code in codes]).take(which),
            "message": pa.array(messages).take(which),
        }
        for name, value in values.items():
            changed = pc.replace_with_mask(rows.column(name).combine_chunks(), pa.array(mask), value)
            rows = rows.set_column(rows.column_names.index(name), rows.field(name), changed)
        return rows


@dataclass(frozen=True)
class _Results:
    """Results of a block's N decoded images, in arrays that Arrow takes without a copy.

    `vectors` are the embeddings rounded to float16, `norms` their norms before; 1 where they are not normalized.
    """

    indices: NDArray[np.int32]
    scores: NDArray[np.float32]
    vectors: NDArray[np.float32]
    norms: NDArray[np.float32]

    @classmethod
    def empty(cls, count: int, like: ModelResults) -> "_Results":
        """Return zeros for `count` images, in the shapes of these results."""
        return cls(
            np.zeros((count, like.indices.shape[1]), np.int32),
            np.zeros((count, like.scores.shape[1]), np.float32),
            np.zeros((count, like.embeddings.shape[1]), np.float32),
            np.ones(count, np.float32),
        )

    def set(self, first: int, end: int, results: ModelResults, *, normalize: bool) -> NDArray[np.bool_]:
        """Set the results of images `first` to `end`. Return which of them are finite."""
        self.indices[first:end], self.scores[first:end] = results.indices, results.scores
        vectors, norms = results.embeddings, self.norms[first:end]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if normalize:
                norms[:] = np.linalg.norm(vectors, axis=1)
                vectors = vectors / norms[:, None]
            self.vectors[first:end] = vectors.astype(np.float16)
            # A sum of float16 values in float32 is finite unless one of them is not: that takes one pass.
            sums = self.vectors[first:end].sum(axis=1) + self.scores[first:end].sum(axis=1) + norms
        finite: NDArray[np.bool_] = np.isfinite(sums)
        return finite


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
