"""Search: a query -> the nearest images, from the index or, without one, by comparing it with every row."""

from collections.abc import Sequence

import pyarrow.compute as pc

from pipeline import schema
from pipeline.errors import ConfigError, TableError
from pipeline.output.reader import PredictionsReader
from pipeline.search import exact
from pipeline.search.hits import Hits, columns_with, hits_of
from pipeline.search.queries import Query

K = 10
"""Hits of a search by default."""
EXACTLY = "Every row was compared, without an index."


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
    k: int = K,
    *,
    where: str | None = None,
    datasets: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> Hits:
    """Return the k ok rows nearest to a query, nearest first, with `columns` in addition to those of every hit.

    `where` is an SQL condition on any column. If the query is a row of the output, that row is not a hit. Raises:
    TableError for an unknown column or dataset, ConfigError for a condition that is not SQL, StorageError.
    """
    wanted = k + 1 if query.image_id is not None else k
    found = exact.nearest(
        reader, query.vector, wanted, where=where, datasets=datasets, columns=columns_with(columns)
    )
    if query.image_id is not None:
        found = found.filter(pc.not_equal(found[schema.IMAGE_ID], query.image_id))
    return hits_of(found.slice(0, k), query, columns, EXACTLY)
