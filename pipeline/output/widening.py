"""Give kept columns wider types: every file of the table is written anew, and one commit exchanges them all.

Delta can widen some types in place, but not a long to a double, and readers of a plain glob would meet two types
in one column. So a widening owns the table as a run does: it has a heartbeat, claims an epoch, writes files of
this epoch that no reader sees, and commits them together with the schema. It is refused while a run works, and a
run that begins meanwhile is refused in turn. If it dies, its files are orphans, which the next run or vacuum
deletes.
"""

import contextlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import BusyError, ConfigError, MovedError, OvertakenError, TableError, first_line
from pipeline.output import column_types, handover, heartbeat, orphans, space
from pipeline.output.column_types import Conversion
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
"""Files that are rewritten at once; of each `ROW_GROUP_ROWS` rows are in memory."""
ATTEMPTS = 5
"""Commits that are tried while maintenance puts other files in the place of some."""

Changes = dict[str, tuple[str, str]]
"""By column, the type that it has and the one that it is to have, as DuckDB calls them."""


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """COLUMN=TYPE, each, as a column and the name of its type. Raises: ConfigError."""
    found: dict[str, str] = {}
    for one in assignments:
        name, equals, type_ = one.rpartition("=")
        if not (name and equals and type_):
            raise ConfigError(f"--widen {one} is not of the form COLUMN=TYPE, as in rating=double.")
        if name in found:
            raise ConfigError(f"--widen names the column {name!r} twice.")
        found[name] = type_
    return found


def widen(output: str, storage: Storage, types: Mapping[str, str], *, keep_replaced: bool = False) -> int:
    """Widen kept columns to the types that `types` names; returns how many files were rewritten.

    Columns that have their type already are left alone. The replaced files are deleted, unless `keep_replaced`.
    Raises: ConfigError for what is no type, TableError for what is no kept column, for a narrower type, and for a
    value that does not fit; BusyError while a run works; SpaceError, StorageError.
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
        raise BusyError(f"{table.uri} has been written to meanwhile; try again when no run works.")
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
    """Delete what a killed widening has replaced, and could not delete: a plain glob reads it.

    Raises: StorageError.
    """
    owner = table.owner()
    if owner is None:
        return
    folder = table.layout.run(owner).uri
    if handover.is_uncleared(folder, table.storage) and not heartbeat.is_alive(folder, table.storage):
        orphans.delete(table, range(table.epoch + 1))


class _Widening:
    """One claimed widening. `written` has, by the visible file that it stands for, each file that is rewritten."""

    def __init__(self, table: Predictions, changes: Changes, run_id: str, epoch: int) -> None:
        self._table, self._changes, self._run_id, self._epoch = table, changes, run_id, epoch
        self._written: dict[str, Fragment] = {}
        self._in_doubt = False

    def go(self) -> int:
        """Rewrite all files, and commit them; once more where maintenance has moved some. How many they are."""
        try:
            for _ in range(ATTEMPTS):
                with contextlib.suppress(MovedError):
                    self._rewrite_all()
                    self._commit()
                    return len(self._written)
                self._table.catch_up(self._epoch)
            raise TableError(f"{self._table.uri} is being compacted by others; try again when they have ended.")
        finally:
            if not self._in_doubt:
                self._discard(self._written)

    def _rewrite_all(self) -> None:
        """Bring the rewritten files up to date with the visible ones."""
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
        self._in_doubt = True  # it may land unseen, or later: then the next one, which reads the log, clears up
        try:
            self._table.change_types(self._written, fields, self._run_id, self._epoch, facts)
        except (MovedError, OvertakenError):
            self._in_doubt = False
            raise

    def _discard(self, replaced: Iterable[str]) -> None:
        """Delete the files that stand for these, which nobody has seen."""
        gone = [self._written.pop(path) for path in list(replaced)]
        self._table.storage.delete_all(self._table.layout.fragment(fragment.path) for fragment in gone)

    def _rewrite(self, path: str) -> None:
        """Write a visible file with its columns in their new types.

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
            size = (room / "new.parquet").stat().st_size
            storage.upload(room / "new.parquet", self._table.layout.fragment(new))
            self._written[path] = Fragment(new, dataset, outcome, source.metadata.num_rows, size)


def _changes(table: Predictions, wanted: Mapping[str, str]) -> Changes:
    """The columns that do not have their types yet. Raises: ConfigError, TableError."""
    held = column_types.duckdb_types(table.kept_columns())
    changes = {}
    for name, type_ in wanted.items():
        kind, target = held.get(name), column_types.parse_type(type_)
        if target is None:
            raise ConfigError(f"--widen {name}={type_}: there is no such type; {column_types.TYPES}.")
        if kind is None:
            have = ", ".join(held) or "none"
            raise TableError(f"--widen {name}={type_}: {table.uri} has no such kept column; it has {have}.")
        if kind == target:
            continue
        if not column_types.is_wider(target, kind):
            raise TableError(
                f"--widen {name}={type_}: the column is {column_types.type_name(kind)}, and "
                f"{column_types.type_name(target)} is not wider than that; text takes everything."
            )
        changes[name] = (kind, target)
    return changes


def _require_idle(table: Predictions) -> None:
    """Raises: BusyError if a run is at work."""
    owner = table.owner()
    folder = table.layout.run(owner or "").uri
    if owner is not None and heartbeat.is_alive(folder, table.storage):
        raise BusyError(
            f"The run {heartbeat.read(folder, table.storage).described} is writing {table.output}; wait for it: "
            "columns can be widened only while no run works."
        )


def _connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")  # as in a plan, so that texts are the same
    return connection


def _require_fit(table: Predictions, changes: Changes) -> None:
    """Raises: TableError if a column has a value that its new type does not hold exactly."""
    with _connection() as connection:
        try:
            PredictionsReader.of(table).create_view(connection)
            found = column_types.misfits(connection, VIEW, changes)
        except duckdb.Error as error:
            raise TableError(f"Cannot read {table.uri}: {first_line(error)}.") from error
    for name, example in found.items():
        target = column_types.type_name(changes[name][1])
        advice = "leave it" if changes[name][1] == column_types.TEXT else "widen it to text, or leave it"
        raise TableError(
            f"--widen {name}={target}: the column holds {example}, which {target} cannot hold exactly; {advice}."
        )


def _convert(source: pq.ParquetFile, new: Path, changes: Changes) -> None:
    """Write a Parquet file anew, some rows at a time, with the columns that change in new types."""
    names = source.schema_arrow.names
    mine = {name: change for name, change in changes.items() if name in names}
    columns = source.schema_arrow.remove_metadata()
    for field in column_types.arrow_fields({name: target for name, (_, target) in mine.items()}):
        columns = columns.set(names.index(field.name), field)
    values = [
        f"{Conversion.of(sql.quoted(name), *change).value} AS {sql.quoted(name)}" for name, change in mine.items()
    ]
    with _connection() as connection, parquet_writer(new, columns) as writer:
        connection.execute("SET threads = 1")  # in the order of the file; files are rewritten side by side
        for batch in source.iter_batches(ROW_GROUP_ROWS):
            rows = pa.Table.from_batches([batch])
            if mine:
                changed = (
                    connection.from_arrow(rows.select(list(mine))).project(", ".join(values)).to_arrow_table()
                )
                for name in mine:
                    rows = rows.set_column(names.index(name), name, changed[name])
            writer.write_table(rows.cast(columns))
