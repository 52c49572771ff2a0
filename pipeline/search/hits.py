"""Hits: the rows that a search has found. This module does not know how they were found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from pipeline import schema
from pipeline.errors import ConfigError
from pipeline.search.exact import DISTANCE
from pipeline.search.queries import Query

COLUMNS = (schema.IMAGE_ID, schema.URI, schema.DATASET, "label", "score")
"""The columns of every hit, before the distance."""


@dataclass(frozen=True)
class Hits:
    """The images nearest to a query, nearest first.

    `table` has one row for each: `image_id`, `uri`, `dataset`, `label`, `score` (both null where the model has no
    head), `distance` (1 − cosine, float32), and the further columns that were asked for. `searched` is a sentence
    about what was searched.
    """

    table: pa.Table
    query: Query
    searched: str

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def to_pandas(self) -> pd.DataFrame:
        """Return the hits as a pandas frame."""
        frame: pd.DataFrame = self.table.to_pandas()
        return frame

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the hits as one dict each, by column."""
        found: list[dict[str, Any]] = self.table.to_pylist()
        return found


def columns_with(asked: Sequence[str]) -> list[str]:
    """Return the columns that a search reads: those of every hit, and those that were asked for.

    Raises: ConfigError for a kept column that has the name of the distance.
    """
    if DISTANCE in asked:
        raise ConfigError(
            f"A hit cannot have the kept column {DISTANCE!r}, because its own {DISTANCE} has that name. Read the "
            "column by the image_id of the hits."
        )
    return list(dict.fromkeys([*COLUMNS, *asked]))


def hits_of(found: pa.Table, query: Query, asked: Sequence[str], searched: str) -> Hits:
    """Return hits of a table that has the columns of `columns_with`, then the distance."""
    further = [name for name in columns_with(asked) if name not in COLUMNS]
    return Hits(found.select([*COLUMNS, DISTANCE, *further]), query, searched)
