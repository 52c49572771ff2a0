"""Build what an index lacks, and make it visible. This module does not know why.

A change is staged first, with everything that is slow: rows, their indexes, and how well searches find them. Two
commits follow, one for the rows and one for the indexes. A reader between them finds the new rows all the same, by
comparing. A writer that is killed leaves a right index, and files that a later one deletes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.cluster.calls import Work
from pipeline.output.changes import Changes
from pipeline.output.reader import PredictionsReader
from pipeline.search import index_lance, index_recall, index_rows, index_segments
from pipeline.search.index_lance import IndexFolder, Segment
from pipeline.search.index_state import IndexState


@dataclass(frozen=True)
class Built:
    """The new version, its state, and the bytes of files that were written for it."""

    dataset: Any
    state: IndexState
    size: int


@dataclass(frozen=True)
class Builder:
    """Where an index is, and who builds it. It has an ANN index from `exact_rows` rows on."""

    folder: IndexFolder
    work: Work
    exact_rows: int

    def anew(self, reader: PredictionsReader, fields: pa.Schema, state: IndexState) -> Built:
        """Replace all rows by the ok rows of a reader. Raises: BusyError, TableError, StorageError."""
        newest = self.folder.open()
        base = self.folder.create(fields) if newest is None else newest
        calls = [(part, fields, self.folder) for part in index_rows.parts(reader)]
        fragments = [one for found in self.work.map(index_rows.write_rows, calls) for one in found]
        return self._finished(base, index_lance.overwrite(fields, fragments), fragments, state)

    def changed(self, base: Any, found: Changes, fields: pa.Schema, state: IndexState) -> Built:
        """Apply upserts and deletes to a version. Raises: BusyError, TableError, StorageError."""
        upserts = index_rows.index_rows(found.upserts(fields.names), fields)
        fragments = self.folder.write(upserts, anew=False) if found.upserted else []
        operation = self.folder.update(base, _ids(found), fragments)
        return self._finished(base, operation, fragments, state, same=not found.upserted and not found.deleted)

    def indexed(self, base: Any, state: IndexState) -> Built:
        """Build the indexes that a version lacks: its writer was killed before. Raises: like `changed`."""
        return self._finished(base, None, [], state, same=True)

    def _finished(
        self, base: Any, operation: Any | None, fragments: Sequence[Any], state: IndexState, *, same: bool = False
    ) -> Built:
        """Stage an operation and its indexes, and commit both. `same`: the rows stay the same.

        Until the second commit, `state` holds: the indexes are those from before.
        """
        folder = self.folder
        staged = base if operation is None else folder.stage(base, operation)
        with folder.errors():  # what follows is slow, and no reader sees it
            plan = index_segments.plan(staged, state, exact_rows=self.exact_rows, workers=self.work.machines)
        segments = list(self.work.map(_built, [(folder, staged.version, segment) for segment in plan.segments]))

        def indexes(version: Any) -> Any:
            return index_lance.create_index(version, segments, plan.replaced)

        searched = folder.stage(staged, indexes(staged)) if segments else staged
        after = plan.state if same and not segments else self._measured(searched, plan.state)
        made = base if operation is None else folder.commit(base, operation, state if segments else after)
        if segments:
            made = folder.commit(made, indexes(made), after.model_copy(update={"follows": made.version}))
        written = [file.file_size_bytes for one in fragments for file in one.files]
        written += [file.size_bytes for one in segments for file in one.files]
        return Built(made, after, sum(written))

    def _measured(self, dataset: Any, state: IndexState) -> IndexState:
        if not state.approximate or not dataset.count_rows():
            return state
        with self.folder.errors():
            found = index_recall.measured(dataset, state.nprobes, state.refine)
        facts = {"nprobes": found.nprobes, "refine": found.refine}
        return state.model_copy(update={**facts, "recall": found.recall, "measured": found.measured})


def _built(folder: IndexFolder, version: int, segment: Segment) -> Any:
    """Build a segment. A task for any machine."""
    return folder.build(version, segment)


def _ids(found: Changes) -> pa.RecordBatchReader:
    """Return the ids of rows that leave the index: deleted ones, and older ones of those that come."""
    fields = pa.schema([schema.PREDICTIONS.field(schema.IMAGE_ID)])

    def batches() -> Iterator[pa.RecordBatch]:
        yield from found.deletes()
        yield from found.upserts([schema.IMAGE_ID])

    return pa.RecordBatchReader.from_batches(fields, batches())
