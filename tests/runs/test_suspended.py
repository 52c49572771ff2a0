"""A run that is suspended at any step of its commits and clean-up, and overtaken, harms nothing later."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from ray import ObjectRef

from pipeline import schema
from pipeline.cluster.budget import FailureBudget
from pipeline.cluster.commit import Committer, Newer, Replacements
from pipeline.cluster.ledger import Ledger
from pipeline.config import FailuresConfig, RunConfig
from pipeline.errors import OvertakenError
from pipeline.output import delta_log, orphans
from pipeline.output.fragment import RemainingRows, WriteResult
from pipeline.output.fragment_files import write_remaining_rows
from pipeline.output.table import Predictions
from pipeline.planning import claim
from pipeline.planning.claim import Assignment, NothingPending
from pipeline.planning.selection import NEW_AND_CHANGED, Selection
from pipeline.storage.filesystems import Storage
from tests.support import lakes, seaweed
from tests.support.making import write_fragment

EVERY_STEP = "LAKELENS_EVERY_STEP" in os.environ
"""`make soak` takes every step; else some are left out."""
IDS = [f"{number}.jpg" for number in range(8)]
FAILED = Selection(failed=True)


class Steps:
    """Counts the steps that the threads of one run take, and holds the run up at one of them.

    A run's own thread and the one that commits for it wait for each other, so their steps have one order.
    """

    def __init__(self, hold: int | None = None) -> None:
        self.taken, self._hold = 0, hold
        self._threads: set[int] = set()
        self.held, self.go_on = threading.Event(), threading.Event()

    def join(self) -> None:
        """Count the steps of the calling thread."""
        self._threads.add(threading.get_ident())

    def take(self) -> None:
        if threading.get_ident() not in self._threads:
            return
        self.taken += 1
        if self.taken == self._hold:
            self.held.set()
            assert self.go_on.wait(60)

    def watch(self, patch: pytest.MonkeyPatch, where: Any, name: str) -> None:
        """A step before each call of this function, and one behind it."""
        function = getattr(where, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.take()
            try:
                return function(*args, **kwargs)
            finally:
                self.take()

        patch.setattr(where, name, watched)


@pytest.fixture(scope="module")
def settings_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunConfig]:
    folder = tmp_path_factory.mktemp("lake")
    rows = [{"uri": f"/{id_}", "image_id": id_, "dataset": "d 1"} for id_ in IDS]
    path, model = lakes.write_manifest(folder / "m.parquet", rows), lakes.tiny_vit(folder / "model")
    return lambda output: lakes.settings(path, model, output)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def outputs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Callable[[int], str], int]]:
    """A place for each round, and how many steps to go between two rounds."""
    if request.param == "local":
        yield lambda number: str(tmp_path / str(number)), 1 if EVERY_STEP else 13
        return
    server: seaweed.S3Server = request.getfixturevalue("s3")
    server.filesystem().mkdirs("suspended", exist_ok=True)
    yield lambda number: f"s3://suspended/{tmp_path.name}/{number}", 1 if EVERY_STEP else 41


def first_run(config: RunConfig) -> None:
    """Half of the rows are there, as failed ones in one file, and an orphan beside it."""
    assigned = claim.plan_and_claim(config, "before", Selection(limit=4))
    assert isinstance(assigned, Assignment)
    write(assigned, IDS[:1])
    commit(assigned, [write(assigned, IDS[:4])])
    assigned.heartbeat.stop()


def write(assigned: Assignment, ids: list[str], places: list[str | None] | None = None) -> WriteResult:
    """A file with these rows, which take the place of those in `places`."""
    fragment = write_fragment(assigned.target.output, "d 1", ids, assigned.epoch)
    found = tuple({place for place in places or [] if place is not None})
    return WriteResult(fragment, replaces=found)


class Written:
    """Stands for the reference of a task that has written these files."""

    def __init__(self, results: list[WriteResult]) -> None:
        self._results = results

    def future(self) -> "Future[list[WriteResult]]":
        done: Future[list[WriteResult]] = Future()
        done.set_result(self._results)
        return done


class WatchedLedger(Ledger):
    """Lets the steps of the committing thread count. All rows may fail."""

    def __init__(self, assigned: Assignment, steps: Steps | None) -> None:
        super().__init__(assigned.account, assigned.pending, FailureBudget(FailuresConfig(max_rate=1)))
        self._steps = steps

    def holds(self, results: Sequence[WriteResult], *, last: bool) -> bool:
        if self._steps is not None:
            self._steps.join()
        return super().holds(results, last=last)


def commit(assigned: Assignment, results: list[WriteResult], steps: Steps | None = None) -> None:
    """Commit as a run does. The steps of the committing thread count, too."""
    table, place = assigned.table, {"output": assigned.target.output, "storage": assigned.target.storage}

    def rewrite(replaced: Newer) -> dict[str, RemainingRows]:
        return {
            path: write_remaining_rows(path, newer, epoch=assigned.epoch, **place)
            for path, newer in replaced.items()
        }

    ledger, replacements = WatchedLedger(assigned, steps), Replacements(table.holders, rewrite)
    committer = Committer(table, assigned.run_id, assigned.epoch, 0.0, ledger, replacements)
    committer.add(cast(ObjectRef, Written(results)))
    committer.close()


def work(config: RunConfig, run_id: str, steps: Steps | None = None) -> None:
    """What a run does to its output: the failed rows again, two by two, and the new ones."""
    for selection in (FAILED, NEW_AND_CHANGED):
        assigned = claim.plan_and_claim(config, run_id, selection, take_over=True)
        if isinstance(assigned, NothingPending):
            continue
        table = assigned.table
        try:
            orphans.delete(table, range(assigned.epoch))
            write(assigned, IDS[:1])  # is never committed
            rows = [row for file in assigned.files for row in read(assigned.target.storage, file)]
            for some in (rows[:2], rows[2:]):
                ids, places = ([row[name] for row in some] for name in (schema.IMAGE_ID, schema.REPLACES))
                commit(assigned, [write(assigned, ids, places)], steps)
            orphans.delete(table, range(assigned.epoch + 1))
        finally:
            assigned.heartbeat.stop()


def read(storage: Storage, uri: str) -> list[dict[str, Any]]:
    return list(pq.read_table(pa.BufferReader(storage.read(uri))).to_pylist())


def older(config: RunConfig, steps: Steps) -> tuple[threading.Thread, list[BaseException]]:
    """Start `work` on a thread; the list gets what it ends with."""
    ended: list[BaseException] = []

    def target() -> None:
        steps.join()
        try:
            work(config, "older", steps)
        except BaseException as error:
            ended.append(error)
        finally:
            steps.held.set()

    thread = threading.Thread(target=target)
    thread.start()
    return thread, ended


def watched(patch: pytest.MonkeyPatch, steps: Steps) -> None:
    for where, name in (
        (DeltaTable, "__init__"),
        (DeltaTable, "create_write_transaction"),
        (DeltaTable, "load_as_version"),
        (Predictions, "claim"),
        (delta_log, "read"),
        (orphans, "unreferenced_files"),
        (Storage, "write"),
        (Storage, "create"),
        (Storage, "filesystem"),
    ):
        steps.watch(patch, where, name)


def check(config: RunConfig, output: str) -> None:
    """Every row once, and every file that the log names is there."""
    storage = Storage(config.storage)
    table = Predictions.open(output, storage)
    assert table is not None
    rows = [row["image_id"] for uri in table.files() for row in read(storage, uri)]
    assert sorted(rows) == IDS


def test_a_run_that_is_suspended_at_any_step_and_overtaken_harms_nothing(
    outputs: tuple[Callable[[int], str], int],
    settings_of: Callable[[str], RunConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, stride = outputs
    count = steps_of_a_whole_run(settings_of(place(0)), monkeypatch)
    assert count > 60
    overtaken = 0
    for hold in range(1, count + 1, stride):
        config = settings_of(place(hold))
        first_run(config)
        steps = Steps(hold)
        with monkeypatch.context() as patch:
            watched(patch, steps)
            thread, ended = older(config, steps)
            assert steps.held.wait(60)
            work(config, "newer")
            check(config, place(hold))
            steps.go_on.set()
            thread.join(60)
        check(config, place(hold))
        assert all(isinstance(error, OvertakenError) for error in ended), (hold, ended)
        overtaken += len(ended)
    assert overtaken > count // stride // 4


def steps_of_a_whole_run(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> int:
    first_run(config)
    steps = Steps()
    with monkeypatch.context() as patch:
        watched(patch, steps)
        thread, ended = older(config, steps)
        thread.join(60)
    assert ended == []
    check(config, config.output.path)
    return steps.taken
