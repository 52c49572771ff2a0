"""Search: a query -> the nearest images, from the index or, without one, by comparing it with every row."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import schema
from pipeline.errors import ConfigError, LakeLensError, TableError
from pipeline.output.changes import changes
from pipeline.output.reader import PredictionsReader
from pipeline.search import exact
from pipeline.search.hits import Hits, columns_with, hits_of
from pipeline.search.index import Index, open_index
from pipeline.search.index_filters import OnlyExactError
from pipeline.search.index_rows import EMBEDDING
from pipeline.search.queries import Query

EXACTLY = "Every row was compared."


def require_askable(
    reader: PredictionsReader, k: int, where: str | None, datasets: Sequence[str], columns: Sequence[str]
) -> None:
    """Check everything but the query, which may need a model. Raises: ConfigError, TableError."""
    if not reader.only(outcome=schema.OK).files:
        raise TableError(f"{reader.output} has no rows with a vector yet, so nothing can be searched.")
    if k < 1:
        raise ConfigError(f"k = {k}: ask for at least one hit.")
    rows = reader.only(datasets, schema.OK)
    rows.schema(columns_with(columns))
    if where is not None:
        rows.require_condition(where)


def search(
    reader: PredictionsReader,
    query: Query,
    k: int,
    *,
    where: str | None = None,
    datasets: Sequence[str] = (),
    columns: Sequence[str] = (),
    exactly: bool = False,
) -> Hits:
    """Return the k ok rows nearest to a query, nearest first, with `columns` in addition to those of every hit.

    `where` is an SQL condition on any column. If the query is a row of the output, that row is not a hit. The
    index answers if it can, unless `exactly`. Raises: TableError for an unknown column or dataset, ConfigError for
    a condition that is not SQL, StorageError.
    """
    wanted = k + 1 if query.image_id is not None else k
    asked = {"where": where, "datasets": datasets, "columns": columns_with(columns)}
    found, searched = _nearest(reader, query.vector, wanted, asked, exactly)
    if query.image_id is not None:
        found = found.filter(pc.not_equal(found[schema.IMAGE_ID], query.image_id))
    return hits_of(found.slice(0, k), query, columns, searched)


def _nearest(
    reader: PredictionsReader, vector: NDArray[np.float32], k: int, asked: Mapping[str, Any], exactly: bool
) -> tuple[pa.Table, str]:
    """Return the k nearest rows, and a sentence about what was searched."""
    try:
        index = None if exactly else open_index(reader.output, reader.storage)
        if index is not None:
            return _from(index, reader, vector, k, **asked), _freshness(index.version, reader)
        why = "" if exactly else " There is no index; `lakelens index` makes one."
    except OnlyExactError as error:
        why = f" The index cannot evaluate {str(error)!r}."
    except LakeLensError as error:
        why = f" The index did not answer: {error}"
    return exact.nearest(reader, vector, k, **asked), f"{EXACTLY}{why}"


def _from(
    index: Index,
    reader: PredictionsReader,
    vector: NDArray[np.float32],
    k: int,
    *,
    columns: list[str],
    **asked: Any,
) -> pa.Table:
    """Return the k nearest rows by the index. Columns that it lacks come from the rows, and so do raw vectors."""
    if {*columns} <= {*index.fields.names} - {EMBEDDING}:
        return index.nearest(vector, k, columns=columns, **asked)
    return exact.with_columns(reader, index.nearest(vector, k, **asked), columns)


def _freshness(version: int, reader: PredictionsReader) -> str:
    """Return a sentence about how far an index is behind the rows that a reader sees."""
    searched = f"The index of version {version} was searched."
    if version == reader.version:
        return searched
    if version > reader.version:
        return f"{searched} The output was opened at version {reader.version}."
    try:
        with changes(reader, version) as found:
            rows = found.upserted + found.deleted
    except TableError:  # a vacuum has deleted what the changes are found with
        behind = f"{reader.version - version:,} versions"
    else:
        if not rows:
            return searched
        behind = f"{reader.version - version:,} versions and {rows:,} rows"
    return f"{searched} It is {behind} behind; `lakelens index` updates it."
