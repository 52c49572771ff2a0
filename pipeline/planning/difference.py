"""manifest − committed = pending, as tables and views of one DuckDB connection.

    input (the manifest's rows) + committed (the table's rows)  ->  firsts  ->  fates, due

It does not know how the manifest is read, or what happens to the rows that are due.
"""

from collections import defaultdict
from dataclasses import dataclass

import duckdb

from pipeline.column_names import FAILED, ORDINAL, OUTCOME, PROBLEM, REPLACES, SELECTED, TRIES
from pipeline.output import reader
from pipeline.output.reader import PredictionsReader
from pipeline.output.table import Predictions
from pipeline.planning.account import Account, Counts
from pipeline.planning.selection import Selection
from pipeline.storage import sql

_FATE = "_lakelens_fate"
"""The column of the account in which a manifest row is counted."""
_ID_KEY = "md5_number(image_id)"
"""Compare ids by 128 bits: that takes a third of the memory and half the time of comparing text."""
_VERSION_KEY = "CASE WHEN version IS NULL THEN 0 ELSE hash(version) END"
_FIRST_ROW = f"({ORDINAL}::UHUGEINT << 64) | ({_VERSION_KEY})::UHUGEINT"
"""A row's ordinal, and its version in the lower 64 bits: an id's minimum belongs to its first row."""
_IS_NEW_OR_CHANGED = "file IS NULL OR (version <> held AND version <> 0 AND held <> 0)"
_IS_FAILED = "tries IS NOT NULL"


def register_committed(
    connection: duckdb.DuckDBPyConnection, table: Predictions | None, selection: Selection
) -> None:
    """Create the view `committed` of the rows that the table holds, and the table `files` of their files.

    A row's `file` is the number of its file, whose `path` is below the predictions table. Its `tries` are null
    unless it is a failed row that is selected.
    """
    committed = PredictionsReader.of(table) if table else None
    connection.execute(
        "CREATE OR REPLACE TABLE files AS "
        "SELECT unnest(range(len($paths::VARCHAR[]))) AS file, unnest($paths::VARCHAR[]) AS path",
        {"paths": [file.path for file in committed.files] if committed else []},
    )
    if committed is None:
        connection.execute(f"CREATE OR REPLACE VIEW committed AS {_NO_COMMITTED_ROWS}")
        return
    committed.create_view(connection, "predictions")
    connection.execute(
        f"""CREATE OR REPLACE VIEW committed AS
        SELECT image_id, {reader.FILE} AS file, version,
            CASE WHEN {_is_tried_again(selection)} THEN coalesce(attempts, 0)::INTEGER END AS tries
        FROM predictions"""
    )


_NO_COMMITTED_ROWS = """
    SELECT NULL::VARCHAR AS image_id, 0::UBIGINT AS file, NULL::VARCHAR AS version, 0::INTEGER AS tries WHERE false
"""


def _is_tried_again(selection: Selection) -> str:
    """Return the condition that a committed row is a failed one that the selection asks for."""
    if not selection.failed:
        return "false"
    is_failed = f"{OUTCOME} = '{FAILED}'"
    if not selection.codes:
        return is_failed
    return f"{is_failed} AND error_code IN ({', '.join(map(sql.literal, selection.codes))})"


def find_fates(connection: duckdb.DuckDBPyConnection, selection: Selection) -> None:
    """Create the table `firsts` and the views `fates` and `due` from `input`, `committed` and `files`.

    `firsts` has the first valid row of every id, and whether it is due. `fates` has every manifest row with its
    column of the account. `due` has the rows to process.
    """
    connection.execute(f"CREATE OR REPLACE TABLE firsts AS {_firsts(selection)}")
    connection.execute(f"CREATE OR REPLACE VIEW fates AS {_fates(selection)}")
    connection.execute(f"CREATE OR REPLACE VIEW due AS {_due(selection)}")


def _firsts(selection: Selection) -> str:
    """Return the SELECT of `firsts`: one pass that groups the ids of both sides."""
    return f"""
        SELECT {ORDINAL}, file, tries, {_IS_FAILED if selection.failed else _IS_NEW_OR_CHANGED} AS due FROM (
            SELECT (min(first) >> 64)::BIGINT AS {ORDINAL}, max(file) AS file, max(tries) AS tries,
                (min(first) & 18446744073709551615::UHUGEINT)::UBIGINT AS version, max(held) AS held
            FROM (
                SELECT {_ID_KEY} AS key, {_FIRST_ROW} AS first, NULL::UINTEGER AS file, NULL::UBIGINT AS held,
                    NULL::INTEGER AS tries
                FROM input WHERE {PROBLEM} IS NULL
                UNION ALL
                SELECT {_ID_KEY}, NULL, file::UINTEGER, {_VERSION_KEY}, tries FROM committed
            ) GROUP BY key HAVING min(first) IS NOT NULL
        )
    """


def _fates(selection: Selection) -> str:
    return f"""
        SELECT dataset, {ORDINAL}, {PROBLEM},
            CASE WHEN {PROBLEM} IS NOT NULL THEN 'invalid'
                WHEN firsts.{ORDINAL} IS NULL THEN 'duplicates'
                WHEN firsts.due AND {_is_selected(selection)} THEN 'left'
                WHEN firsts.file IS NULL THEN 'not_selected'
                ELSE 'already_done' END AS {_FATE}
        FROM input LEFT JOIN firsts USING ({ORDINAL})
    """


def _due(selection: Selection) -> str:
    return f"""
        SELECT input.*, firsts.tries AS {TRIES}, files.path AS {REPLACES}
        FROM input
        JOIN (FROM firsts WHERE due) AS firsts USING ({ORDINAL})
        LEFT JOIN files ON files.file = firsts.file
        WHERE {_is_selected(selection)}
    """


def _is_selected(selection: Selection) -> str:
    """Return the condition that the user selects a manifest row."""
    if not selection.datasets:
        return SELECTED
    return f"({SELECTED} AND dataset IN ({', '.join(map(sql.literal, selection.datasets))}))"


@dataclass(frozen=True)
class InvalidRows:
    """Manifest rows that are invalid for one reason: how many, and the ordinal of the first one."""

    reason: str
    rows: int
    first: int


def count_fates(connection: duckdb.DuckDBPyConnection) -> tuple[Account, list[InvalidRows]]:
    """Return the account, and the invalid rows by reason, the most frequent reason first."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    invalid: dict[str, InvalidRows] = {}
    for dataset, fate, reason, rows, first in connection.execute(
        f"SELECT dataset, {_FATE}, {PROBLEM}, count(*), min({ORDINAL}) FROM fates GROUP BY ALL"
    ).fetchall():
        counts[dataset][fate] += rows
        if reason is not None:
            found = invalid.get(reason, InvalidRows(reason, 0, first))
            invalid[reason] = InvalidRows(reason, found.rows + rows, min(found.first, first))
    account = {dataset: Counts(input=sum(fates.values()), **fates) for dataset, fates in sorted(counts.items())}
    return Account(account), sorted(invalid.values(), key=lambda found: (-found.rows, found.reason))
