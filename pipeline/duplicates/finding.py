"""A search for duplicates from start to end: files with the same bytes, then vectors that are near each other.

Only one row of the files with the same bytes is compared by its vector. The groups become visible in one step.
"""

import time
from collections.abc import Callable, Iterator

import duckdb
import numpy as np
import pyarrow as pa

from pipeline.duplicates import lake_rows, result, work
from pipeline.duplicates.grouping import LARGEST, Groups
from pipeline.duplicates.lake_rows import LakeRows
from pipeline.duplicates.pairs import PAIRS, distances, near_pairs, unit
from pipeline.duplicates.pieces import pieces
from pipeline.duplicates.result import DUPLICATES, Found, Share
from pipeline.errors import ConfigError
from pipeline.output.reader import PredictionsReader
from pipeline.storage import temporary_folders

DISTANCE = 0.05
"""The cosine distance up to which two images are near duplicates."""
FARTHEST = 0.3
"""The largest distance that can be asked for: farther pairs are seldom in one piece."""
TOLERANCE = 1e-6
"""What rounding may add to a distance."""
BATCH_ROWS = 8_192


def find(
    reader: PredictionsReader,
    out: str | None = None,
    *,
    distance: float = DISTANCE,
    keep: str | None = None,
    address: str | None = None,
    largest: int = LARGEST,
    on_progress: Callable[[int, int], None] = lambda done, rows: None,
) -> Found:
    """Group the ok rows of one version, and write the groups to `out`, a Parquet file on any store.

    By default it is `duplicates.parquet` below the output. `distance` 0 finds the same bytes and the same vectors.
    `keep` is another Parquet file: a manifest of the images that stay. A group has up to `largest` different
    files. `work.place` tells what `address` does. Raises: ConfigError, TableError, StorageError, ClusterError.
    """
    started = time.monotonic()
    if not 0 <= distance <= FARTHEST:
        raise ConfigError(f"distance = {distance} is not between 0 and {FARTHEST}.")
    place = result.place(out, reader.output)
    kept = keep and result.place(keep, reader.output)
    if kept == place:
        raise ConfigError(
            f"The groups and the manifest cannot be one file, {place}: choose another one for --keep."
        )
    with temporary_folders.folder() as folder, lake_rows.read(reader, folder, on_progress) as rows:
        refused = _group(rows, distance, largest, address)
        _measure(rows, distance)
        ((groups,),) = rows.connection.sql("SELECT count(DISTINCT chosen) FROM members").fetchall()
        seconds = round(time.monotonic() - started, 1)
        found = Found(
            place, reader.table_id, reader.version, distance, groups, refused, seconds, _shares(rows.connection)
        )
        result.write(folder / "duplicates.parquet", _members(rows.connection), found)
        if kept:
            result.write_kept(reader, folder / "duplicates.parquet", folder / "kept.parquet")
            reader.storage.upload(folder / "kept.parquet", kept)
        reader.storage.upload(folder / "duplicates.parquet", place)
    return found


def _group(rows: LakeRows, distance: float, largest: int, address: str | None) -> int:
    """Create the table `members`: each row of a group, its node, and the row that is chosen for the group.

    Return how many pairs were refused.
    """
    connection = rows.connection
    connection.register("batch", PAIRS.empty_table())
    connection.execute("CREATE TABLE pairs AS FROM batch")
    searched = rows.searched()
    with work.place(address, len(searched)) as place:
        calls = ((rows.vectors[piece], piece, distance) for piece in pieces(rows.vectors, searched, place))
        for found in place.map(near_pairs, calls):
            connection.register("batch", found)
            connection.execute("INSERT INTO pairs FROM batch")
    refused = _join(connection, largest)
    connection.execute(
        """CREATE TABLE members AS
        WITH placed AS (
            SELECT lake_rows.*, coalesce(node, row) AS node, coalesce(root, node, row) AS root
            FROM lake_rows LEFT JOIN copies USING (row) LEFT JOIN joined ON joined.near = coalesce(node, row)
            WHERE node IS NOT NULL OR root IS NOT NULL),
        chosen AS (
            SELECT root, row_number() OVER (ORDER BY best.image_id) - 1 AS "group", best FROM (
                SELECT root, first({'row': row, 'node': node, 'image_id': image_id} ORDER BY area DESC, image_id)
                AS best FROM placed GROUP BY root HAVING count(*) > 1))  -- a refused pair leaves single ones
        SELECT row, image_id, dataset, node, "group", best.row AS chosen, best.node AS chosen_node
        FROM placed JOIN chosen USING (root)"""
    )
    return refused


def _join(connection: duckdb.DuckDBPyConnection, largest: int) -> int:
    """Create the table `joined`: each row of a near pair, and the row that stands for its group."""
    found = connection.sql(
        "SELECT first AS row FROM pairs UNION SELECT second FROM pairs ORDER BY row"
    ).fetchnumpy()
    nodes = np.asarray(found["row"], np.int64)
    groups = Groups(len(nodes), largest)
    in_order = connection.sql(
        "SELECT first, second FROM pairs GROUP BY first, second ORDER BY min(distance), first, second"
    )
    for batch in in_order.to_arrow_reader(BATCH_ROWS):
        first, second = (np.searchsorted(nodes, batch[name].to_numpy()).tolist() for name in ("first", "second"))
        groups.join(zip(first, second, strict=True))
    connection.register("batch", pa.table({"near": nodes, "root": nodes[groups.roots()]}))
    connection.execute("CREATE TABLE joined AS FROM batch")
    return groups.refused


def _measure(rows: LakeRows, distance: float) -> None:
    """Create the view `measured`: `members` with the distance to the chosen row, and whether to keep the row.

    The far ends of a chain are kept, too: only what is near the chosen row can go.
    """
    connection = rows.connection
    connection.execute("CREATE TABLE distances (row BIGINT, distance FLOAT)")
    others = connection.cursor().sql("SELECT row, node, chosen_node FROM members WHERE node <> chosen_node")
    for batch in others.to_arrow_reader(BATCH_ROWS):
        nodes, chosen = (rows.vectors[batch[name].to_numpy()] for name in ("node", "chosen_node"))
        cosines = np.einsum("nd,nd->n", unit(nodes), unit(chosen))
        connection.register("batch", pa.table({"row": batch["row"], "distance": distances(cosines)}))
        connection.execute("INSERT INTO distances FROM batch")
    connection.execute(
        f"""CREATE VIEW measured AS SELECT *, coalesce(distance, 0)::FLOAT AS apart, node = chosen_node AS exact,
            row = chosen OR apart > {distance + TOLERANCE}::FLOAT AS keep
        FROM members LEFT JOIN distances USING (row)"""
    )


def _shares(connection: duckdb.DuckDBPyConnection) -> tuple[Share, ...]:
    found = connection.sql(
        """SELECT dataset, count(*), count(*) FILTER (NOT keep AND node <> row),
            count(*) FILTER (NOT keep AND node = row)
        FROM lake_rows LEFT JOIN (SELECT row, node, keep FROM measured) USING (row)
        GROUP BY dataset ORDER BY dataset"""
    )
    return tuple(Share(*counts) for counts in found.fetchall())


def _members(connection: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
    """Yield `DUPLICATES`, each group with its chosen row first."""
    in_order = connection.sql(
        """SELECT "group", image_id, dataset, apart AS distance, exact, keep
        FROM measured ORDER BY "group", row <> chosen, image_id"""
    )
    for batch in in_order.to_arrow_reader(BATCH_ROWS):
        yield pa.RecordBatch.from_arrays(batch.columns, schema=DUPLICATES)
