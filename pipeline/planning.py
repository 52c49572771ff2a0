"""manifest − committed = pending, by DuckDB, as Parquet files: no Ray, no image is opened.

Resume and backfill are this same difference. DuckDB spills to disk, so the plan of a large lake needs
no more memory than DuckDB is given.
"""

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import manifest, schema, space
from pipeline.account import Account, Counts
from pipeline.config import ManifestConfig, RunConfig
from pipeline.errors import SpaceError, TableError
from pipeline.model import Model, resolve
from pipeline.storage import Storage, absolute, failure, join
from pipeline.table import Predictions

PENDING_FILE_ROWS = 262_144
"""Rows of one pending file, and of what is in memory while it is written: some tens of MB."""
PENDING_GROUP_ROWS = 65_536
"""Rows of one row group: what one read task takes."""
CLAIM_ATTEMPTS = 5
"""Plans made because the table moved between planning and claiming, before giving up."""


@dataclass(frozen=True)
class Selection:
    """Which manifest rows a run is for: those that the output lacks, or those that it holds as failed.

    `codes` narrows the failed ones; empty means all of them.
    """

    failed: bool = False
    codes: tuple[str, ...] = ()


MISSING = Selection()


@dataclass(frozen=True)
class Target:
    """The embedding space that a config means: its model, its place, and its table if it has one yet."""

    storage: Storage
    model: Model
    description: dict[str, Any]
    output: str
    table: Predictions | None


def target(config: RunConfig) -> Target:
    """Resolve the model and look at the output. Writes nothing.

    Raises: ModelError, StorageError, TableError, SpaceError if the output is another space.
    """
    storage = Storage(config.storage)
    model = resolve(config.model, storage)
    description = model.space(config.embedding, config.decode)
    output = absolute(space.location(config.output.path, model.slug, description))
    known = space.check(output, description, storage)
    table = Predictions.open(output, storage)
    if table is not None and not known:
        raise SpaceError(
            f"{output} holds predictions but no {space.FILE}, so it cannot be told which space they are of; put "
            "it back, or choose another output.path."
        )
    return Target(storage, model, description, output, table)


class Plan:
    """What is to be done: an account whose `left` rows are the pending ones."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.account = _account(connection)
        self.problems = _problems(connection)
        columns = connection.sql("SELECT * FROM input LIMIT 0").to_arrow_table().schema
        known = {*schema.PENDING.names, schema.ORDINAL, schema.PROBLEM}
        self.kept: list[pa.Field] = [field for field in columns if field.name not in known]

    @property
    def pending(self) -> int:
        """Rows to process."""
        return self.account.total.left

    def write_pending(self, folder: str, storage: Storage) -> list[str]:
        """Write the pending rows, ordered by dataset, as Parquet files below a URI; returns their URIs.

        Raises: StorageError.
        """
        pending = pa.schema([*schema.PENDING, *self.kept])
        columns = ", ".join(
            f"{'retried' if name in _RETRIED else 'input'}.{manifest.quoted(name)}" for name in pending.names
        )
        rows = self._connection.sql(
            f"SELECT {columns} FROM input JOIN state USING ({schema.ORDINAL}) LEFT JOIN retried USING (image_id) "
            f"WHERE state.status = 'left' ORDER BY input.dataset, {schema.ORDINAL}"
        ).to_arrow_reader(PENDING_FILE_ROWS)
        fs, root = storage.filesystem(folder)
        uris = []
        try:
            fs.makedirs(root, exist_ok=True)
            for number, batch in enumerate(rows):
                name = f"{number:05}.parquet"
                with fs.open(f"{root}/{name}", "wb") as file:
                    table = pa.Table.from_batches([batch]).cast(pending)
                    pq.write_table(table, file, compression="zstd", row_group_size=PENDING_GROUP_ROWS)
                uris.append(join(folder, name))
        except duckdb.Error:
            raise
        except Exception as error:
            raise failure(error, folder) from error
        return uris


@contextmanager
def plan(
    config: ManifestConfig, storage: Storage, table: Predictions | None, selection: Selection = MISSING
) -> Iterator[Plan]:
    """Read the manifest and subtract what the table holds, or what it does not hold as failed.

    The plan can be written for as long as the context lasts. Raises: ManifestError, StorageError.
    """
    scratch = Path(tempfile.mkdtemp(prefix="lakelens-plan-"))
    try:
        with duckdb.connect(scratch / "plan.duckdb") as connection:
            connection.execute("SET TimeZone = 'UTC'")  # Delta knows no other
            _read_manifest(connection, config, storage, scratch)
            _read_committed(connection, table, storage, selection)
            connection.execute(_STATE, {"missing": "not_selected" if selection.failed else "left"})
            yield Plan(connection)
    except duckdb.Error as error:
        raise manifest.unreadable(error, config) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


_STATE = f"""
CREATE TABLE state AS
SELECT {schema.ORDINAL}, input.dataset, CASE
    WHEN {schema.PROBLEM} IS NOT NULL THEN 'invalid'
    WHEN {schema.ORDINAL} <> firsts.first_ordinal THEN 'duplicates'
    WHEN input.image_id IN (SELECT image_id FROM retried) THEN 'left'
    WHEN input.image_id IN (SELECT image_id FROM committed) THEN 'already_done'
    ELSE $missing END AS status
FROM input LEFT JOIN (
    SELECT image_id, min({schema.ORDINAL}) AS first_ordinal FROM input WHERE {schema.PROBLEM} IS NULL
    GROUP BY image_id
) AS firsts ON input.image_id = firsts.image_id
"""


def _read_manifest(
    connection: duckdb.DuckDBPyConnection, config: ManifestConfig, storage: Storage, scratch: Path
) -> None:
    """Table `input`: the checked manifest, numbered in its order."""
    files = manifest.sources(config, storage, scratch)
    manifest.register_stores(connection, [file.uri for file in files], storage)
    manifest.relation(connection, files, config).create_view("manifest")
    connection.execute(f"CREATE TABLE input AS SELECT row_number() OVER () AS {schema.ORDINAL}, * FROM manifest")


def _read_committed(
    connection: duckdb.DuckDBPyConnection, table: Predictions | None, storage: Storage, selection: Selection
) -> None:
    """View `committed`: the ids that the predictions table holds, whatever became of them. Table `retried`: those
    that failed and are selected, with their attempts and where they are. Raises: TableError.
    """
    connection.execute(f"CREATE TABLE retried ({_RETRIED_COLUMNS})")
    files = table.files() if table else []
    if not files:
        connection.execute("CREATE VIEW committed AS SELECT NULL::VARCHAR AS image_id WHERE false")
        return
    manifest.register_stores(connection, files, storage)
    try:
        connection.read_parquet(files, hive_partitioning=False).project("image_id").create_view("committed")
        failed = [uri for uri in files if f"/{schema.OUTCOME}={schema.FAILED}/" in uri]
        if selection.failed and failed:
            connection.execute(_retried(failed, selection.codes))
    except duckdb.Error as error:
        raise TableError(f"Cannot read the predictions: {str(error).splitlines()[0].rstrip('.')}.") from error


_RETRIED = {schema.TRIES: "INTEGER", schema.REPLACES: "VARCHAR", schema.REPLACED_ROW: "BIGINT"}
_RETRIED_COLUMNS = ", ".join(f"{name} {kind}" for name, kind in {schema.IMAGE_ID: "VARCHAR", **_RETRIED}.items())


def _retried(files: list[str], codes: Sequence[str]) -> str:
    """Fill `retried` from files of failed rows; the path of a file is relative to the table."""
    chosen = f"WHERE error_code IN ({', '.join(map(manifest.literal, codes))})" if codes else ""
    return (
        "INSERT INTO retried SELECT image_id, coalesce(attempts, 0), "
        "regexp_extract(filename, '[^/]+/[^/]+/[^/]+$'), file_row_number "
        f"FROM read_parquet({manifest.literals(files)}, filename = true, file_row_number = true, "
        f"union_by_name = true, hive_partitioning = false) {chosen}"
    )


def _account(connection: duckdb.DuckDBPyConnection) -> Account:
    counted: dict[str, dict[str, int]] = defaultdict(dict)
    for dataset, status, rows in connection.execute(
        "SELECT dataset, status, count(*) FROM state GROUP BY ALL"
    ).fetchall():
        counted[dataset][status] = rows
    return Account(
        {dataset: Counts(input=sum(rows.values()), **rows) for dataset, rows in sorted(counted.items())}
    )


def _problems(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Why rows are invalid, and how many are; the most frequent reason first."""
    return dict(
        connection.execute(
            f"SELECT {schema.PROBLEM}, count(*) FROM input WHERE {schema.PROBLEM} IS NOT NULL "
            "GROUP BY ALL ORDER BY 2 DESC, 1"
        ).fetchall()
    )


@dataclass(frozen=True)
class Assignment:
    """A plan that this run owns: its epoch, and the pending rows as files below `folder`.

    With nothing pending, `epoch` is 0 and nothing was written anywhere.
    """

    target: Target
    run_id: str
    folder: str
    epoch: int
    account: Account
    files: list[str]
    selection: Selection


def assign(config: RunConfig, run_id: str, selection: Selection = MISSING) -> Assignment:
    """Plan, and claim the output's next epoch for what is pending; plan again if the table moved meanwhile.

    Raises: LakeLensError of any kind that `target` and `plan` raise; TableError if it keeps moving.
    """
    for _ in range(CLAIM_ATTEMPTS):
        where = target(config)
        folder = join(where.output, "runs", run_id)
        with plan(config.manifest, where.storage, where.table, selection) as found:
            if not found.pending:
                return Assignment(where, run_id, folder, 0, found.account, [], selection)
            table = where.table
            if table is None:
                space.claim(where.output, where.description, where.storage)
                table = Predictions.create(where.output, where.storage, found.kept)
                if table.version > 0:  # another run was first, and may have committed
                    continue
            epoch = table.claim(run_id, found.kept)
            if epoch is None:
                continue
            where.storage.write(join(folder, "config.yaml"), config.to_yaml().encode())
            plan_document = found.account.to_dict() | {"invalid": found.problems}
            where.storage.write_json(join(folder, "plan.json"), plan_document)
            files = found.write_pending(join(folder, "pending"), where.storage)
        return Assignment(replace(where, table=table), run_id, folder, epoch, found.account, files, selection)
    raise TableError(f"{where.output} is being written by other runs; try again when they have ended.")
