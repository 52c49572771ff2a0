"""Widen kept columns: rewrite every file of the table, and replace all of them in one commit.

Delta can widen some types in place, but not a long to a double, and readers of a plain glob would find two types
in one column. A widening therefore owns the table as a run does: it has a heartbeat, claims an epoch, writes files
that no reader sees, and commits them together with the schema. It is refused while a run works, and a run that
starts meanwhile is refused. If it dies, the next run or vacuum deletes its orphaned files.
"""

import contextlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.errors import BusyError, ConfigError, MovedError, OvertakenError, TableError, first_line
from pipeline.output import column_types, handover, heartbeat, orphans, space
from pipeline.output.column_types import Conversion
from pipeline.output.file_statistics import FileStatistics, statistics_columns
from pipeline.output.fragment import Fragment
from pipeline.output.handover import Handover, HandoverFile
from pipeline.output.heartbeat import Heartbeat
from pipeline.output.layout import fragment_path, partition_of
from pipeline.output.maintenance import WIDENED, user_and_host
from pipeline.output.prediction_rows import ROW_GROUP_ROWS, parquet_writer
from pipeline.output.reader import VIEW, PredictionsReader
from pipeline.output.table import Predictions
from pipeline.storage import sql, temporary_folders
from pipeline.storage.filesystems import Storage, failure

WRITES = 4
"""Files that are rewritten at once. Each holds `ROW_GROUP_ROWS` rows in memory."""
ATTEMPTS = 5
"""Attempts at the commit while maintenance replaces files."""

Changes = dict[str, tuple[str, str]]
"""The old and the new type of each column, with DuckDB's names."""


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """Parse assignments of the form COLUMN=TYPE. Raises: ConfigError."""
    found: dict[str, str] = {}
    for one in assignments:
        name, equals, type_ = one.rpartition("=")
        if not (name and equals and type_):
            raise ConfigError(f"--widen {one} does not have the form COLUMN=TYPE, such as rating=double.")
        if name in found:
            raise ConfigError(f"--widen names the column {name!r} twice.")
        found[name] = type_
    return found


def widen(output: str, storage: Storage, types: Mapping[str, str], *, keep_replaced: bool = False) -> int:
    """Widen kept columns to the types that `types` names, and return the number of rewritten files.

    Columns that already have their type are left alone. The replaced files are deleted, unless `keep_replaced`.
    Raises: ConfigError for an unknown type; TableError for an unknown column, a narrower type or a value that does
    not fit; BusyError while a run works; SpaceError, StorageError.
    """
    space.read(output, storage)
    table = Predictions.existing(output, storage)
    changes = _changes(table, types)
    if not changes:
        if not keep_replaced:
            _clear_up(table)
        return 0
    _require_idle(table)
    _require_fit(table, changes)
    owner = table.owner()
    previous = handover.read(table.layout.run(owner).uri, storage) if owner is not None else Handover()
    run_id = f"widen-{uuid4().hex[:6]}"
    folder = table.layout.run(run_id).uri
    # Before the claim: a run that loses the race for the epoch must see this heartbeat.
    beating = Heartbeat(folder, run_id, storage)
    try:
        epoch = table.claim(run_id, [], {"by": f"lakelens compact, {user_and_host()}"})
    except BaseException:
        beating.discard()
        raise
    if epoch is None:
        beating.discard()
        raise BusyError(f"A run has written to {table.uri} meanwhile. Try again when no run works.")
    try:
        left = HandoverFile(folder, storage, previous)
        files = _Widening(table, changes, run_id, epoch).go()
        if not keep_replaced:
            orphans.delete(table, range(epoch + 1))
        left.note_cleared_up()
        return files
    finally:
        beating.stop()


def _clear_up(table: Predictions) -> None:
    """Delete the files that a killed widening has replaced but not deleted: a plain glob reads them.

    Raises: StorageError.
    """
    owner = table.owner()
    if owner is None:
        return
    folder = table.layout.run(owner).uri
    if handover.is_uncleared(folder, table.storage) and not heartbeat.is_alive(folder, table.storage):
        orphans.delete(table, range(table.epoch + 1))


class _Widening:
    """One claimed widening. `_written` maps each visible file to its rewritten copy."""

    def __init__(self, table: Predictions, changes: Changes, run_id: str, epoch: int) -> None:
        self._table, self._changes, self._run_id, self._epoch = table, changes, run_id, epoch
        self._written: dict[str, Fragment] = {}
        self._in_doubt = False

    def go(self) -> int:
        """Rewrite all files and commit them, again if maintenance has moved some. Return their number."""
        try:
            for _ in range(ATTEMPTS):
                with contextlib.suppress(MovedError):
                    self._rewrite_all()
                    self._commit()
                    return len(self._written)
                self._table.catch_up(self._epoch)
            raise TableError(
                f"Maintenance keeps replacing files of {self._table.uri}. Try again when it has ended."
            )
        finally:
            if not self._in_doubt:
                self._discard(self._written)

    def _rewrite_all(self) -> None:
        """Rewrite the visible files that have no rewritten copy yet, and delete copies of files that are gone."""
        visible = self._table.paths()
        self._discard(set(self._written) - set(visible))
        with ThreadPoolExecutor(WRITES) as pool:
            try:
                list(pool.map(self._rewrite, (path for path in visible if path not in self._written)))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _commit(self) -> None:
        fields = column_types.arrow_fields({name: new for name, (_, new) in self._changes.items()})
        said = ", ".join(f"{name}={column_types.type_name(new)}" for name, (_, new) in self._changes.items())
        facts = {WIDENED: said, "by": f"lakelens compact, {user_and_host()}"}
        self._in_doubt = True  # the commit may land later; the next run reads the log and clears up
        try:
            self._table.change_types(self._written, fields, self._run_id, self._epoch, facts)
        except (MovedError, OvertakenError):
            self._in_doubt = False
            raise

    def _discard(self, replaced: Iterable[str]) -> None:
        """Delete the rewritten copies of these files, which no reader has seen."""
        gone = [self._written.pop(path) for path in list(replaced)]
        self._table.storage.delete_all(self._table.layout.fragment(fragment.path) for fragment in gone)

    def _rewrite(self, path: str) -> None:
        """Rewrite a visible file with its columns in their new types.

        Raises: MovedError if it is gone, StorageError.
        """
        storage, uri = self._table.storage, self._table.layout.fragment(path)
        dataset, outcome = partition_of(path)
        new = fragment_path(dataset, outcome, self._epoch)
        fs, inner = storage.filesystem(uri)
        with temporary_folders.folder() as room, contextlib.ExitStack() as opened:
            try:
                source = pq.ParquetFile(opened.enter_context(fs.open(inner, "rb")))
                _convert(source, room / "new.parquet", self._changes)
            except FileNotFoundError as error:
                raise MovedError(f"{uri} is gone.") from error
            except Exception as error:
                raise failure(error, uri) from error
            rewritten = room / "new.parquet"
            storage.upload(rewritten, self._table.layout.fragment(new))
            rows, size = source.metadata.num_rows, rewritten.stat().st_size
            self._written[path] = Fragment(new, dataset, outcome, rows, size, _statistics(rewritten))


def _changes(table: Predictions, wanted: Mapping[str, str]) -> Changes:
    """Return the columns that do not have their new types yet. Raises: ConfigError, TableError."""
    held = column_types.duckdb_types(schema.kept(table.columns()))
    changes = {}
    for name, type_ in wanted.items():
        kind, target = held.get(name), column_types.parse_type(type_)
        if target is None:
            raise ConfigError(f"--widen {name}={type_}: this type is unknown; {column_types.TYPES}.")
        if kind is None:
            have = ", ".join(held) or "none"
            raise TableError(f"--widen {name}={type_}: {table.uri} has no such kept column; it has {have}.")
        if kind == target:
            continue
        if not column_types.is_wider(target, kind):
            raise TableError(
                f"--widen {name}={type_}: the column is {column_types.type_name(kind)}, and "
                f"{column_types.type_name(target)} is not wider than that. Text takes every value."
            )
        changes[name] = (kind, target)
    return changes


def _require_idle(table: Predictions) -> None:
    """Check that no run works on the output. Raises: BusyError."""
    owner = table.owner()
    folder = table.layout.run(owner or "").uri
    if owner is not None and heartbeat.is_alive(folder, table.storage):
        raise BusyError(
            f"The run {heartbeat.read(folder, table.storage).described} is writing {table.output}. Wait for it: "
            "columns can be widened only while no run works."
        )


def _connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")  # as in a plan, so that values have the same text
    return connection


def _require_fit(table: Predictions, changes: Changes) -> None:
    """Check that every value fits its new type exactly. Raises: TableError."""
    with _connection() as connection:
        try:
            PredictionsReader.of(table).create_view(connection)
            found = column_types.misfits(connection, VIEW, changes)
        except duckdb.Error as error:
            raise TableError(f"Cannot read {table.uri}: {first_line(error)}.") from error
    for name, example in found.items():
        target = column_types.type_name(changes[name][1])
        advice = "Leave it" if changes[name][1] == column_types.TEXT else "Widen it to text, or leave it"
        raise TableError(
            f"--widen {name}={target}: the column holds {example}, which {target} cannot hold exactly. {advice}."
        )


def _statistics(file: Path) -> FileStatistics:
    """Compute the statistics of a file on this machine."""
    with pq.ParquetFile(file) as opened:
        return FileStatistics.of(opened.read(statistics_columns(opened.schema_arrow)))


def _convert(source: pq.ParquetFile, new: Path, changes: Changes) -> None:
    """Rewrite a Parquet file with some columns in new types, `ROW_GROUP_ROWS` rows at a time."""
    names = source.schema_arrow.names
    mine = {name: change for name, change in changes.items() if name in names}
    columns = source.schema_arrow.remove_metadata()
    for field in column_types.arrow_fields({name: target for name, (_, target) in mine.items()}):
        columns = columns.set(names.index(field.name), field)
    values = [
        f"{Conversion.of(sql.quoted(name), *change).value} AS {sql.quoted(name)}" for name, change in mine.items()
    ]
    with _connection() as connection, parquet_writer(new, columns) as writer:
        connection.execute("SET threads = 1")  # keeps the order of the file; several files are rewritten at once
        for batch in source.iter_batches(ROW_GROUP_ROWS):
            rows = pa.Table.from_batches([batch])
            if mine:
                changed = (
                    connection.from_arrow(rows.select(list(mine))).project(", ".join(values)).to_arrow_table()
                )
                for name in mine:
                    rows = rows.set_column(names.index(name), name, changed[name])
            writer.write_table(rows.cast(columns))
