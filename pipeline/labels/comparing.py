"""Where two heads give different labels, on a sample of the rows: what a person wants to see before a switch."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.errors import HeadError
from pipeline.labels import scoring
from pipeline.labels.head import Head
from pipeline.output.reader import PredictionsReader
from pipeline.storage.filesystems import Storage, failure

CHANGES = 20
"""The changes that are kept, the most frequent first."""
SMALL_MARGIN = 0.1
"""A difference of the best two scores below which a label is uncertain."""


@dataclass(frozen=True)
class LabelChange:
    """How many images go from one label to another, and the id of the one with the smallest margin."""

    first: str
    second: str
    images: int
    example: str


@dataclass(frozen=True)
class HeadComparison:
    """What two heads say of the same rows.

    `table` has the rows with different labels or a margin below `SMALL_MARGIN`, smallest margin first: image_id,
    uri, dataset, label and score of both heads, and the margin of the second.
    """

    rows: int
    different: int
    changes: tuple[LabelChange, ...]
    table: pa.Table

    @property
    def share(self) -> float:
        """The share of rows with different labels."""
        return self.different / self.rows if self.rows else 0.0


def compare(reader: PredictionsReader, first: Head, second: Head, *, sample: int, seed: int = 0) -> HeadComparison:
    """Compare the labels of two heads on ok rows, as many of each dataset. Raises: HeadError if there are none."""
    columns = [schema.IMAGE_ID, schema.URI, schema.DATASET, "embedding", "embedding_norm"]
    rows = reader.only(outcome=schema.OK).sample(sample, seed, columns)
    if not rows.num_rows:
        raise HeadError(f"{reader.output} has no ok rows to compare heads on.")
    vectors, norms = scoring.vectors_of(rows)
    labels, scores = zip(*(_labels(head, vectors, norms) for head in (first, second)), strict=True)
    margin = scores[1][:, 0] - scores[1][:, 1] if scores[1].shape[1] > 1 else np.ones(rows.num_rows, np.float32)
    order = np.argsort(margin, kind="stable")
    different = labels[0] != labels[1]
    shown = order[(different | (margin < SMALL_MARGIN))[order]]
    table = rows.select(columns[:3])
    for name, values in (
        ("first_label", labels[0]),
        ("first_score", scores[0][:, 0]),
        ("second_label", labels[1]),
        ("second_score", scores[1][:, 0]),
        ("margin", margin),
    ):
        table = table.append_column(name, pa.array(values))
    pairs = [(str(labels[0][row]), str(labels[1][row])) for row in order if different[row]]
    examples = {pair: row for pair, row in reversed(list(zip(pairs, order[different[order]], strict=True)))}
    ids = rows[schema.IMAGE_ID]
    changes = tuple(
        LabelChange(*pair, images, ids[int(examples[pair])].as_py())
        for pair, images in Counter(pairs).most_common(CHANGES)
    )
    return HeadComparison(rows.num_rows, int(different.sum()), changes, table.take(pa.array(shown)))


def write(found: HeadComparison, uri: str, storage: Storage) -> None:
    """Write the table as .parquet or .csv. Raises: HeadError for another ending, StorageError."""
    if not uri.endswith((".parquet", ".csv")):
        raise HeadError(f"Cannot write {uri}: its name must end in .parquet or .csv.")
    fs, path = storage.filesystem(uri)
    try:
        with fs.open(path, "wb") as file:
            (pq.write_table if uri.endswith(".parquet") else pa_csv.write_csv)(found.table, file)
    except Exception as error:
        raise failure(error, uri) from error


def _labels(head: Head, vectors: scoring.F32, norms: scoring.F32) -> tuple[np.ndarray, scoring.F32]:
    """Return the best label of each row, (N,), and its best two scores, (N, 2)."""
    found = scoring.score(head, vectors, norms, 2)
    return np.array(head.labels, object)[found.indices[:, 0]].astype(str), found.scores
