"""How many of the demo's labels are what was drawn."""

import duckdb

_QUERY = """
SELECT dataset, count(*), avg((label = truth)::INT)
FROM read_parquet(?, hive_partitioning = true, hive_types = {'dataset': VARCHAR})
WHERE outcome = 'ok' GROUP BY ROLLUP (dataset) ORDER BY dataset NULLS LAST
"""


def accuracy(output: str) -> list[tuple[str, int, float]]:
    """(dataset, images, share of right labels) of the ok rows of an output; the last is the "total"."""
    rows = duckdb.execute(_QUERY, [f"{output}/predictions/*/*/*.parquet"]).fetchall()
    return [("total" if dataset is None else dataset, images, share) for dataset, images, share in rows]
