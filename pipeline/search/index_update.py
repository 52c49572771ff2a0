"""Bring the index of an output up to date: from the changes since it was made, or anew from all rows.

Only one writer works on an index, as its heartbeat tells. If two start at once, the second commit is refused.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pyarrow as pa

from pipeline import schema
from pipeline.errors import BusyError, SpaceError, TableError, VersionGoneError
from pipeline.output import heartbeat, space
from pipeline.output.changes import changes
from pipeline.output.heartbeat import Heartbeat
from pipeline.output.layout import Layout
from pipeline.output.reader import PredictionsReader
from pipeline.output.space import SpaceDescription
from pipeline.search import index_lance, index_rows, index_work
from pipeline.search.index_build import Builder, Built
from pipeline.search.index_lance import IndexFolder
from pipeline.search.index_segments import EXACT_ROWS
from pipeline.search.index_state import IndexState
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import absolute

DELETED = 0.25
"""The share of deleted rows above which an index is built anew: they take space, and searches meet them."""
FRAGMENTS = 500
"""The number of files above which an index is built anew: a search opens each of them."""


@dataclass(frozen=True)
class IndexReport:
    """What one update has done.

    `version` is that of the predictions, `rows` the number of rows in the index. `anew` is the reason why all rows
    were written, None if only changes were. `nprobes`, `refine`, `recall` and `measured` are as in `IndexState`;
    `approximate` is false if searches compare the query with every row. `written` counts bytes.
    """

    version: int
    rows: int
    upserts: int
    deletes: int
    anew: str | None
    approximate: bool
    nprobes: int
    refine: int
    recall: float
    measured: int
    written: int
    seconds: float


def update(
    output: str,
    storage: Storage,
    *,
    columns: Sequence[str] | None = None,
    rebuild: bool = False,
    address: str | None = None,
    exact_rows: int = EXACT_ROWS,
) -> IndexReport:
    """Bring the index of an output up to date with the newest version of its predictions.

    `columns` are kept in addition to `index_rows.COLUMNS`; None means those that the index has. Large changes are
    made by the Ray cluster at `address` or $RAY_ADDRESS, if there is one. Below `exact_rows` rows there is no ANN
    index. Raises: BusyError if another program writes to the index; SpaceError, TableError, StorageError,
    ClusterError; ConfigError without Lance.
    """
    started = time.monotonic()
    index_lance.library()
    reader = PredictionsReader.open(absolute(output), storage)
    folder = IndexFolder(Layout(reader.output).index, storage)
    with _alone(folder):
        dataset = folder.open()
        held = None if dataset is None else _newest_state(dataset)
        described = _described(reader)
        wanted = _wanted(reader, described, columns, held)
        fields = index_rows.index_schema(reader, wanted.columns, described.dim or _dim(reader))
        reason = "it was asked for" if rebuild else _why_anew(dataset, held, wanted, fields)
        making = _Making(reader, fields, wanted, folder, address, exact_rows)
        made = making.anew(reason) if reason or not held else making.from_changes(dataset, held)
        folder.clean_up(made.built.dataset, alone=made.changes_rows)
    return made.report(time.monotonic() - started)


@dataclass(frozen=True)
class _Made:
    """A new version, the changes in it, and the reason if it was made anew."""

    built: Built
    upserts: int = 0
    deletes: int = 0
    reason: str | None = None
    changes_rows: bool = True

    def report(self, seconds: float) -> IndexReport:
        state = self.built.state
        return IndexReport(
            version=state.version,
            rows=self.built.dataset.count_rows(),
            upserts=self.upserts,
            deletes=self.deletes,
            anew=self.reason,
            approximate=state.approximate,
            nprobes=state.nprobes,
            refine=state.refine,
            recall=state.recall,
            measured=state.measured,
            written=self.built.size,
            seconds=seconds,
        )


@dataclass(frozen=True)
class _Making:
    reader: PredictionsReader
    fields: pa.Schema
    wanted: IndexState
    folder: IndexFolder
    address: str | None
    exact_rows: int

    def anew(self, reason: str | None) -> _Made:
        rows = self.reader.only(outcome=schema.OK)
        count = rows.count()
        with self._builder(count) as builder:
            return _Made(builder.anew(rows, self.fields, self.wanted), count, reason=reason)

    def from_changes(self, dataset: Any, held: IndexState) -> _Made:
        if held.version == self.wanted.version:
            with self._builder(0) as builder:
                return _Made(builder.indexed(dataset, held), changes_rows=False)
        state = held.model_copy(update={"version": self.wanted.version, "follows": None})
        try:
            with changes(self.reader, held.version) as found, self._builder(found.upserted) as builder:
                built = builder.changed(dataset, found, self.fields, state)
                return _Made(built, found.upserted, found.deleted)
        except VersionGoneError as error:
            return self.anew(str(error))

    @contextmanager
    def _builder(self, rows: int) -> Iterator[Builder]:
        with index_work.place(self.address, large=rows >= self.exact_rows) as work:
            yield Builder(self.folder, work, self.exact_rows)


@contextmanager
def _alone(folder: IndexFolder) -> Iterator[None]:
    """Refuse to work beside a living writer, and show others that this one lives. Raises: BusyError."""
    if heartbeat.is_alive(folder.uri, folder.storage):
        other = heartbeat.read(folder.uri, folder.storage).described
        raise BusyError(f"Another program is writing to {folder.uri}: {other}. Run again when it has ended.")
    with Heartbeat(folder.uri, f"index-{uuid4().hex[:6]}", folder.storage):
        yield


def _newest_state(dataset: Any) -> IndexState | None:
    """Return the state of exactly this version; None if this LakeLens did not make it."""
    found = index_lance.state_of(dataset)
    return found[0] if found and found[1] == dataset.version else None


def _described(reader: PredictionsReader) -> SpaceDescription:
    """Return the description of the output's space. Raises: SpaceError if there is none, StorageError."""
    found = space.read(reader.output, reader.storage)
    if found is None:
        raise SpaceError(f"There is no output at {reader.output}: {Layout(reader.output).space} does not exist.")
    return found


def _wanted(
    reader: PredictionsReader,
    described: SpaceDescription,
    columns: Sequence[str] | None,
    held: IndexState | None,
) -> IndexState:
    """Return the state of a new index."""
    kept = held.columns if columns is None and held else (*index_rows.COLUMNS, *(columns or ()))
    names = tuple(name for name in dict.fromkeys(kept) if name != index_rows.EMBEDDING)
    return IndexState(
        table_id=reader.table_id, fingerprint=described.fingerprint, version=reader.version, columns=names
    )


def _dim(reader: PredictionsReader) -> int:
    """Return the length of the first vector. Raises: TableError if there is none yet."""
    rows = reader.only(outcome=schema.OK).batches([index_rows.EMBEDDING], batch_rows=1)
    first = next(rows, None)
    if first is None:
        raise TableError(f"{reader.output} has no labelled or embedded rows yet, so there is nothing to index.")
    return len(first[index_rows.EMBEDDING][0])


def _why_anew(dataset: Any | None, held: IndexState | None, wanted: IndexState, fields: pa.Schema) -> str | None:
    """Return why the index cannot be made of the one that is there; None if it can."""
    if dataset is None:
        return "there was none"
    if held is None:
        return "another program or another version of LakeLens has written the one that was there"
    if held.table_id != wanted.table_id:
        return "the output was made anew"
    if held.fingerprint != wanted.fingerprint:
        return "the output holds another embedding space"
    if not dataset.schema.equals(fields):
        return "its columns have changed"
    return _why_rewritten(dataset)


def _why_rewritten(dataset: Any) -> str | None:
    fragments = dataset.get_fragments()
    rows, stored = dataset.count_rows(), sum(one.physical_rows for one in fragments)
    if not rows:
        return "the one that was there had no rows"
    if stored - rows > DELETED * stored:
        return f"more than {DELETED:.0%} of its rows were deleted"
    if len(fragments) > FRAGMENTS + rows // index_lance.FRAGMENT_ROWS:
        return f"it had {len(fragments)} files"
    return None
