"""Which files of labels to write, which to keep, and which to remove. It reads the logs, and writes nothing."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa

from pipeline import schema
from pipeline.errors import VersionGoneError
from pipeline.labels.label_files import Labeller, LabelTask
from pipeline.output.changes import changes
from pipeline.output.label_table import DatasetState, LabelFile, LabelState, LabelTable, source_name
from pipeline.output.reader import PredictionsReader
from pipeline.output.visible_files import VisibleFile

EARLIER_FILES = 64
"""Files of labels in which a task looks for labels that stay valid. Beyond, computing is faster than looking."""


@dataclass(frozen=True)
class LabelPlan:
    """The files of labels to write, those to remove, the rows of those that stay, and the state after it."""

    tasks: list[LabelTask]
    removed: list[LabelFile]
    kept: int
    state: LabelState


def plan(table: LabelTable, labeller: Labeller, datasets: Sequence[str], where: str | None) -> LabelPlan:
    """Decide which files of labels to write and to remove, so that the chosen datasets are complete."""
    reader, state = labeller.reader.only(outcome=schema.OK), table.state()
    wanted = DatasetState(version=reader.version, head=labeller.head.sha256, top_k=labeller.top_k, where=where)
    held = [file for file in table.files() if not datasets or file.dataset in datasets]
    known = state.datasets if state.table_id == reader.table_id else {}
    earlier = _EarlierLabels(reader, known, held, wanted)
    tasks = [task for file in reader.files if (task := earlier.task(file)) is not None]
    paths = {labeller.path(task) for task in tasks}
    stays = {file.path for file in held if file.path in paths or earlier.is_current(file)}
    chosen = {name: wanted for name in datasets or reader.datasets}
    return LabelPlan(
        tasks=[task for task in tasks if labeller.path(task) not in stays],
        kept=sum(file.rows for file in held if file.path in stays),
        removed=[file for file in held if file.path not in stays],
        state=LabelState(table_id=reader.table_id, datasets={**known, **chosen} if datasets else chosen),
    )


class _EarlierLabels:
    """Finds labels that stay valid: whole files of them, and those of rows whose file was rewritten."""

    def __init__(
        self,
        reader: PredictionsReader,
        known: Mapping[str, DatasetState],
        held: Sequence[LabelFile],
        wanted: DatasetState,
    ) -> None:
        self._where = wanted.where
        self._complete = {name for name, was in known.items() if _same_labels(was, wanted)}
        self._held = {(file.dataset, file.source): file.path for file in held if file.dataset in known}
        sources = {(file.dataset, source_name(file.path)) for file in reader.files}
        self._superseded = defaultdict[str, list[str]](list)
        for (dataset, source), path in self._held.items():
            if (dataset, source) not in sources:
                self._superseded[dataset].append(path)
        # Labels of rows that have changed in a file are not valid. Without the changes, none of its labels is.
        self._changed = _changed_rows(reader, known, set(self._superseded))

    def is_current(self, file: LabelFile) -> bool:
        """Tell whether all labels of a file stay valid."""
        path = self._held.get((file.dataset, file.source))
        superseded = self._superseded.get(file.dataset, ())
        return file.dataset in self._complete and path == file.path and path not in superseded

    def task(self, source: VisibleFile) -> LabelTask | None:
        """Return what is left to do for a file of predictions; None if it has its labels."""
        key = (source.dataset, source_name(source.path))
        reuses = self._where is not None or source.dataset in self._complete
        if self._where is None and source.dataset in self._complete and key in self._held:
            return None
        if reuses and key in self._held:
            return LabelTask(source, (self._held[key],), where=self._where)
        superseded = tuple(sorted(self._superseded.get(source.dataset, ())))
        if reuses and source.path in self._changed and len(superseded) <= EARLIER_FILES:
            return LabelTask(source, superseded, self._changed[source.path], self._where)
        return LabelTask(source, where=self._where)


def _same_labels(was: DatasetState, wanted: DatasetState) -> bool:
    return (was.head, was.top_k, was.where) == (wanted.head, wanted.top_k, None) and wanted.where is None


def _changed_rows(
    reader: PredictionsReader, known: Mapping[str, DatasetState], datasets: set[str]
) -> dict[str, pa.ChunkedArray]:
    """Return the ids of changed rows by file of predictions, for files that hold older rows, too."""
    found = dict[str, pa.ChunkedArray]()
    for version in {known[name].version for name in datasets}:
        of_version = sorted(name for name in datasets if known[name].version == version)
        with suppress(VersionGoneError), changes(reader, version, datasets=of_version) as changed:
            found |= {file.path: ids for file, ids in changed.rewritten()}
    return found
