"""The labels of heads as columns of the predictions, as in the condition `species.label = 'owl'`.

A head is a struct column, so its name and a dot work in SQL. The columns `species.label`, `species.score` and
`species.labels` can be selected, too.
"""

import re
from collections.abc import Iterable, Sequence

import duckdb
import pyarrow as pa

from pipeline import schema
from pipeline.output.label_table import LABELS, LabelTable, names
from pipeline.storage import sql
from pipeline.storage.filesystems import Storage

_VALUES = ("label", "score", "labels")
_DOTTED = re.compile(r'[A-Za-z_"][\w-]*"?\s*\.')


def mentioned(texts: Iterable[str], output: str, storage: Storage) -> list[str]:
    """Return the heads of an output that conditions or names of columns mention. Raises: StorageError."""
    dotted = [text for text in texts if _DOTTED.search(text)]
    heads = names(output, storage) if dotted else []
    return [
        head
        for head in heads
        if any(re.search(rf'(?<![\w."]){re.escape(head)}\s*\.|"{re.escape(head)}"\s*\.', text) for text in dotted)
    ]


def fields(head: str) -> dict[str, pa.Field]:
    """Return the columns that a head adds, by name."""
    return {
        f"{head}.{value}": LABELS.field(value).with_name(f"{head}.{value}").with_nullable(True)
        for value in _VALUES
    }


def create_view(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    rows: str,
    heads: Sequence[str],
    output: str,
    storage: Storage,
) -> None:
    """Create a view of the view `rows` with the labels of these heads; null for a row without a label.

    Raises: TableError, StorageError.
    """
    columns, joins = ["rows.*"], [rows + " AS rows"]
    for number, head in enumerate(heads):
        table = LabelTable.open(output, head, storage)
        uris = table.uris() if table else []
        sql.register_stores(connection, uris, storage)
        values = ", ".join(f"{value} := {value}" for value in _VALUES)
        source = f"read_parquet({sql.files(uris)}, hive_partitioning = false)" if uris else _NO_LABELS
        joins.append(
            f"LEFT JOIN (SELECT {schema.IMAGE_ID}, struct_pack({values}) AS found FROM {source}) AS head_{number} "
            f"USING ({schema.IMAGE_ID})"
        )
        columns.append(f"head_{number}.found AS {sql.quoted(head)}")
        columns += [f"head_{number}.found.{value} AS {sql.quoted(f'{head}.{value}')}" for value in _VALUES]
    connection.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT {', '.join(columns)} FROM {' '.join(joins)}")


_NO_LABELS = (
    "(SELECT NULL::VARCHAR AS image_id, NULL::VARCHAR AS label, NULL::FLOAT AS score, "
    'NULL::STRUCT("label" VARCHAR, "score" FLOAT, "index" INTEGER)[] AS labels WHERE false)'
)
