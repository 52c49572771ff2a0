"""The index of an output, to search in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import schema
from pipeline.errors import TableError
from pipeline.output.layout import Layout
from pipeline.output.table import Predictions
from pipeline.search import index_filters, index_lance
from pipeline.search.exact import DECIMALS, DISTANCE
from pipeline.search.index_filters import OnlyExactError
from pipeline.search.index_lance import IndexFolder
from pipeline.search.index_rows import EMBEDDING, matrix
from pipeline.search.index_segments import MAX_PARTITIONS, PARTITION_ROWS
from pipeline.search.index_state import IndexState
from pipeline.storage.filesystems import Storage, failure
from pipeline.storage.uris import absolute

ROOM = 16
"""Matching rows that a search looks at for each hit, at least."""


@dataclass(frozen=True)
class Index:
    """One version of an index. A version that is no longer the newest can be searched for another day."""

    folder: IndexFolder
    state: IndexState
    dataset: Any

    @property
    def version(self) -> int:
        """The version of the predictions whose rows it has."""
        return self.state.version

    @property
    def fields(self) -> pa.Schema:
        """The columns that it has. The last one, the vector, is D float16."""
        return self.dataset.schema

    def nearest(
        self,
        vector: NDArray[np.float32],
        k: int,
        *,
        where: str | None = None,
        datasets: Sequence[str] = (),
        columns: Sequence[str] = (schema.IMAGE_ID,),
    ) -> pa.Table:
        """Return the k rows nearest to `vector`, float32 (D,), nearest first: `columns`, then `DISTANCE`.

        Raises: OnlyExactError for a condition or a column that the index cannot answer, TableError.
        """
        dim = self.fields.field(EMBEDDING).type.list_size
        if len(vector) != dim:
            raise TableError(f"The query has {len(vector)} numbers, but the vectors of {self.folder.uri} {dim}.")
        missing = [name for name in columns if name not in self.fields.names]
        if missing:
            raise OnlyExactError(missing[0])
        condition = self._condition(where, datasets)
        with self.folder.errors():
            matching = self.dataset.count_rows(condition)
            found = self._found(vector, min(k, matching), condition, matching, list(columns))
        order = pc.sort_indices(found, [(DISTANCE, "ascending"), (schema.IMAGE_ID, "ascending")])
        return found.take(order).select([*columns, DISTANCE])

    def _condition(self, where: str | None, datasets: Sequence[str]) -> str | None:
        parts = [index_filters.among(schema.DATASET, datasets)] if datasets else []
        parts += [] if where is None else [index_filters.pushed_down(where, self.fields)]
        return " AND ".join(parts) or None

    def _found(
        self, vector: NDArray[np.float32], k: int, condition: str | None, matching: int, columns: list[str]
    ) -> pa.Table:
        names = list(dict.fromkeys([*columns, schema.IMAGE_ID, EMBEDDING]))
        if not k:
            return self.dataset.head(0, columns=names).append_column(DISTANCE, pa.array([], pa.float32()))
        found = self.dataset.to_table(
            columns=[*names, "_distance"],
            nearest={"column": EMBEDDING, "q": vector, "k": k, **self._effort(k, matching)},
            filter=condition,
            prefilter=True,
        )
        return found.select(names).append_column(DISTANCE, pa.array(_distances(found, vector)))

    def _effort(self, k: int, matching: int) -> dict[str, Any]:
        """Look into more partitions if few rows match, or if many are wanted. Lance looks into further ones if
        these have fewer than k."""
        if not self.state.approximate:
            return {"metric": "cosine", "use_index": False}
        share = matching / self.dataset.count_rows()
        partitions = max(self.state.nprobes, ROOM * k / PARTITION_ROWS) / share
        return {
            "minimum_nprobes": min(int(np.ceil(partitions)), MAX_PARTITIONS),
            "refine_factor": self.state.refine,
        }


def _distances(found: pa.Table, vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine distances of rows, float32 (N,). Lance has computed them from a query in float16."""
    vectors = matrix(found[EMBEDDING].combine_chunks())
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector)
    return np.asarray(np.maximum(np.round(1 - vectors @ vector / lengths, DECIMALS), 0), np.float32)


def open_index(output: str, storage: Storage) -> Index | None:
    """Open the newest version of an output's index. Return None if it has none of its present table.

    Raises: ConfigError if there is one and Lance is not installed; TableError, StorageError.
    """
    output = absolute(output)
    folder = IndexFolder(Layout(output).index, storage)
    fs, path = storage.filesystem(f"{folder.uri}/_versions")
    try:
        there = fs.exists(path)
    except Exception as error:
        raise failure(error, folder.uri) from error
    dataset = folder.open() if there else None
    found = None if dataset is None else index_lance.state_of(dataset)
    if found is None or found[0].table_id != Predictions.existing(output, storage).table_id:
        return None
    return Index(folder, found[0], dataset)
