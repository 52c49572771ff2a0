"""Bring the labels of a head to the newest version of the predictions.

Every file of predictions has one file of labels, whose name follows from what is in it. So a relabelling that dies
loses nothing: the next one finds the files. One commit at the end makes all of them visible, so readers see the
old labels or the new ones. Two relabellings at once write the same files, and only one of them can commit.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import ray
from numpy.typing import NDArray

from pipeline import schema
from pipeline.cluster import connection
from pipeline.errors import TableError
from pipeline.labels import head as heads, label_plan
from pipeline.labels.head import Head
from pipeline.labels.label_files import Labeller, LabelResult, LabelTask
from pipeline.labels.label_plan import LabelPlan
from pipeline.output import space as spaces
from pipeline.output.label_table import LabelTable
from pipeline.output.reader import PredictionsReader
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import absolute

TOP_K = 5
"""Labels kept for each image by default, as in `labels.top_k` of a config."""
ALONE_ROWS = 200_000
"""Rows that are labelled without Ray: some seconds, less than Ray takes to start."""
ATTEMPTS = 5
"""Plans to make before giving up, if other relabellings commit in between."""


@dataclass(frozen=True)
class Relabelled:
    """What a relabelling did.

    `rows` ok rows of `version` of the predictions have a label; `computed` of them got it now, from the head with
    the hash `head`. `unlabelled` ok rows have none, because they never met a condition.
    """

    name: str
    head: str
    version: int
    rows: int
    computed: int
    unlabelled: int
    seconds: float

    @property
    def sentence(self) -> str:
        """The result in words."""
        done = f"{self.rows:,} rows have a label, {self.computed:,} of them a new one, in {self.seconds:.1f} s"
        left = f"; {self.unlabelled:,} rows have none, because they do not meet the condition"
        made_by = f"(version {self.version} of the predictions, head {self.head})"
        return f"{self.name}: {done} {made_by}{left if self.unlabelled else ''}"


def relabel(
    output: str,
    folder: str,
    storage: Storage,
    *,
    name: str | None = None,
    datasets: Sequence[str] = (),
    where: str | None = None,
    top_k: int = TOP_K,
    address: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, files: None,
) -> Relabelled:
    """Give every ok row of an output a label of the head in `folder`. Rows that have one already keep it.

    With `datasets`, other datasets keep the labels that they have. With `where`, an SQL condition, only rows that
    meet it are labelled again. `on_progress` receives the files of labels that are done, and their number. Raises:
    HeadError if the head is damaged or belongs to another space; TableError, ConfigError, StorageError.
    """
    started = time.monotonic()
    output = absolute(output)
    head = heads.load(folder, storage)
    name = heads.name_of(folder) if name is None else heads.require_name(name)
    for _ in range(ATTEMPTS):
        reader = PredictionsReader.open(output, storage).only(datasets)
        _require_space(head, output, storage)
        if where is not None:
            reader.require_condition(where)
        table = LabelTable.create(output, name, storage)
        labeller = Labeller(reader, head, name, top_k)
        plan = label_plan.plan(table, labeller, datasets, where)
        results = _written(labeller, plan.tasks, address, on_progress)
        files, removed = [result.file for result in results], [file.path for file in plan.removed]
        if (plan.state == table.state() and not files) or table.commit(files, removed, plan.state):
            return _summary(labeller, plan, results, time.monotonic() - started)
    raise TableError(f"Other relabellings keep writing to {table.uri}. Try again when they have ended.")


def _require_space(head: Head, output: str, storage: Storage) -> None:
    description = spaces.read(output, storage)
    if description is None:
        raise TableError(f"There is no output at {output}.")
    head.require(description, output)


def _written(
    labeller: Labeller, tasks: list[LabelTask], address: str | None, on_progress: Callable[[int, int], None]
) -> list[LabelResult]:
    """Write the files of labels: on Ray, unless there are few rows."""
    results = list[LabelResult]()
    alone = address is None and sum(task.source.rows or 0 for task in tasks) <= ALONE_ROWS
    for result in map(labeller.write, tasks) if alone else _on_ray(labeller, tasks, address):
        results.append(result)
        on_progress(len(results), len(tasks))
    return results


def _on_ray(labeller: Labeller, tasks: list[LabelTask], address: str | None) -> Iterator[LabelResult]:
    with connection.connected(address), connection.translated_errors():
        numbers = ray.data.range(len(tasks), override_num_blocks=len(tasks))
        written = numbers.map_batches(_write, batch_size=None, fn_args=(labeller, tasks))
        for row in written.iter_rows():
            yield row["result"]


def _write(
    numbers: dict[str, NDArray[np.int64]], labeller: Labeller, tasks: list[LabelTask]
) -> dict[str, list[LabelResult]]:
    """Write files of labels, in a Ray task."""
    return {"result": [labeller.write(tasks[number]) for number in numbers["id"]]}


def _summary(labeller: Labeller, plan: LabelPlan, results: list[LabelResult], seconds: float) -> Relabelled:
    rows = plan.kept + sum(result.file.rows for result in results)
    ok = labeller.reader.only(outcome=schema.OK)
    return Relabelled(
        name=labeller.name,
        head=labeller.head.sha256,
        version=ok.version,
        rows=rows,
        computed=sum(result.computed for result in results),
        unlabelled=ok.count() - rows,
        seconds=seconds,
    )
