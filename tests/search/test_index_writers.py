"""Writers of an index that are killed, and two at once: readers see the old or the new rows."""

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.cluster.calls import Here
from pipeline.errors import BusyError
from pipeline.output.changes import changes
from pipeline.output.heartbeat import Heartbeat
from pipeline.search import index_lance, index_rows
from pipeline.search.index_build import Builder
from pipeline.search.index_lance import IndexFolder
from pipeline.search.index_state import IndexState
from tests.support import orphans
from tests.support.histories import DIM, History
from tests.support.indexes import (
    ANN_ROWS,
    FINGERPRINT,
    described,
    folder_of,
    index_of,
    refreshed,
    rows_in,
    rows_of,
)
from tests.support.making import STORAGE

EVERY_STEP = "LAKELENS_EVERY_STEP" in os.environ
KILLS = 20 if EVERY_STEP else 2
STEPS = {1: "rows written", 2: "staged", 3: "first index", 6: "last index", 7: "staged", 8: "rows", 9: "indexes"}
"""The steps of an update that change its folder."""
START_S = 60.0


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> History:
    made = described(History(tmp_path_factory.mktemp("written") / "out"))
    made.run(ok=[f"image-{number:03}" for number in range(40)])
    refreshed(made.path)
    return made


@pytest.fixture
def history(indexed: History, tmp_path: Path) -> History:
    """A copy of an output of 40 rows that are indexed, with five upserts and a delete that are not yet."""
    shutil.copytree(indexed.path, tmp_path / "out")
    copy = History(tmp_path / "out", dict(indexed.rows), indexed.runs)
    copy.run(ok=["new-1", "new-2", "new-3", "image-001", "image-002"], failed=["image-000"])
    return copy


class DeathError(Exception):
    """Stands for a kill."""


class Mortal(IndexFolder):
    """A folder whose writer dies at the n-th step that changes it."""

    steps = 0
    last = 0

    def step(self) -> None:
        type(self).steps += 1
        if self.steps == self.last:
            raise DeathError

    def write(self, *arguments: Any, **named: Any) -> Any:
        self.step()
        return super().write(*arguments, **named)

    def stage(self, *arguments: Any) -> Any:
        self.step()
        return super().stage(*arguments)

    def build(self, *arguments: Any) -> Any:
        self.step()
        return super().build(*arguments)

    def commit(self, *arguments: Any) -> Any:
        self.step()
        return super().commit(*arguments)


def mortal(history: History, last: int) -> IndexFolder:
    return type("Mortal", (Mortal,), {"last": last, "steps": 0})(folder_of(history.path).uri, STORAGE)


def apply_changes(history: History, folder: IndexFolder) -> None:
    """Update the index without a heartbeat, as if no other writer were seen."""
    index = index_of(history.path)
    state = index.state.model_copy(update={"version": history.version, "follows": None})
    with changes(history.reader(), index.version) as found:
        Builder(folder, Here(), ANN_ROWS).changed(index.dataset, found, index.fields, state)


@pytest.mark.parametrize("step", STEPS if EVERY_STEP else [3, 8, 9])
def test_a_writer_may_die_at_any_step(history: History, indexed: History, step: int) -> None:
    with pytest.raises(DeathError):
        apply_changes(history, mortal(history, step))
    assert rows_in(index_of(history.path)) == rows_of(history if step == max(STEPS) else indexed)
    assert refreshed(history.path).anew is None
    assert rows_in(index_of(history.path)) == rows_of(history)
    assert covered(history) == {"image_id", "dataset", "label", "embedding"}


def test_a_first_build_may_die_before_its_indexes_are_committed(tmp_path: Path) -> None:
    history = described(History(tmp_path / "first"))
    history.run(ok=[f"image-{number:03}" for number in range(20)])
    with pytest.raises(DeathError):
        build(history, mortal(history, max(STEPS)))
    assert not index_of(history.path).state.approximate
    assert trained_again(history)


def test_a_training_may_die_before_its_indexes_are_committed(history: History) -> None:
    before = index_of(history.path).state
    history.run(ok=[f"more-{number:03}" for number in range(100)])
    with pytest.raises(DeathError):
        apply_changes(history, mortal(history, max(STEPS)))
    assert index_of(history.path).state.model == before.model
    assert trained_again(history)


def trained_again(history: History) -> bool:
    """Update the index, and tell whether it is trained with the rows that it has already."""
    assert rows_in(index_of(history.path)) == rows_of(history)
    assert refreshed(history.path).anew is None
    assert covered(history) == {"image_id", "dataset", "label", "embedding"}
    return index_of(history.path).state.trained == len(history.rows)


def build(history: History, folder: IndexFolder) -> None:
    """Build the first index of an output."""
    reader = history.reader()
    state = IndexState(
        table_id=reader.table_id, fingerprint=FINGERPRINT, version=reader.version, columns=index_rows.COLUMNS
    )
    fields = index_rows.index_schema(reader, state.columns, DIM)
    Builder(folder, Here(), ANN_ROWS).anew(reader.only(outcome="ok"), fields, state)


def covered(history: History) -> set[str]:
    """The columns whose index covers every row."""
    dataset = index_of(history.path).dataset
    fragments = {one.fragment_id for one in dataset.get_fragments()}
    return {
        one.name
        for one in dataset.describe_indices()
        if {number for part in one.segments for number in part.fragment_ids} == fragments
    }


def test_what_a_dead_writer_leaves_is_deleted_by_the_next_one(history: History) -> None:
    index = index_of(history.path)
    no_ids = pa.table({"image_id": pa.array([], pa.string())}).to_reader()
    written = index.folder.write(index.dataset.to_table().to_reader(), anew=False)
    index.folder.stage(index.dataset, index.folder.update(index.dataset, no_ids, written))
    assert len(files(history)) == 2
    refreshed(history.path)
    assert files(history) == set()


def files(history: History) -> set[str]:
    """Files of vectors and of staged versions that the newest version does not need."""
    index = index_of(history.path).dataset
    used = {file.path for one in index.get_fragments() for file in one.metadata.files}
    there = {path.name for path in (history.path / "index" / "data").iterdir()} - used
    return there | {path.name for path in (history.path / "index" / "_versions").glob("d*.manifest")}


def test_a_writer_that_was_overtaken_changes_nothing(history: History) -> None:
    base = index_of(history.path)
    slow = History(history.path, dict(history.rows), history.runs)
    operation = base.folder.update(base.dataset, pa.table({"image_id": ["image-009"]}).to_reader(), [])
    refreshed(history.path)
    with pytest.raises(BusyError, match="Another program has changed"):
        base.folder.commit(base.dataset, operation, base.state)
    assert rows_in(index_of(history.path)) == rows_of(slow)


@pytest.mark.parametrize("deletes", [([], []), (["image-009"], ["image-008"]), (["image-009"], ["new-1"])])
def test_lance_itself_refuses_the_second_of_two_updates(
    history: History, deletes: tuple[list[str], list[str]]
) -> None:
    refreshed(history.path)
    base = index_of(history.path)
    ids = [pa.table({"image_id": pa.array(some, pa.string())}) for some in deletes]
    one, two = (base.folder.update(base.dataset, some.to_reader(), []) for some in ids)
    base.folder.commit(base.dataset, one, base.state)
    lance = index_lance.library()
    with pytest.raises(index_lance.library("lance.commit").CommitConflictError):
        lance.LanceDataset.commit(base.dataset, lance.Transaction(base.dataset.version, two), max_retries=0)


def test_a_second_writer_beside_a_living_one_is_refused(history: History) -> None:
    before = rows_in(index_of(history.path))
    with (
        Heartbeat(folder_of(history.path).uri, "index-1", STORAGE),
        pytest.raises(BusyError, match=r"Another program is writing to .*index-1"),
    ):
        refreshed(history.path)
    assert rows_in(index_of(history.path)) == before


def test_a_killed_writer_leaves_the_old_or_the_new_rows(history: History, indexed: History) -> None:
    chance = random.Random(7)
    for _ in range(KILLS):
        before = rows_in(index_of(history.path))
        kill_a_writer(history, after_s=chance.uniform(0.0, 1.0))
        assert rows_in(index_of(history.path)) in (before, rows_of(history))
        history.run(ok=[f"later-{history.runs}"])
    assert refreshed(history.path).anew is None
    assert rows_in(index_of(history.path)) == rows_of(history)
    assert files(history) == set()


def kill_a_writer(history: History, after_s: float) -> None:
    """Start a program that updates the index, and kill it some time after its heartbeat."""
    heartbeat = history.path / "index" / "heartbeat.json"
    heartbeat.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.support.index_writer", str(history.path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=orphans.none_left)
    try:
        deadline = time.monotonic() + START_S
        while not heartbeat.exists() and time.monotonic() < deadline:
            assert process.poll() in (None, 0)
            time.sleep(0.01)
        time.sleep(after_s)
    finally:
        process.kill()
        process.communicate()
