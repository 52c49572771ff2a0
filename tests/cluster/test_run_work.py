"""A run that ends leaves nothing on a cluster that lives on, whatever its workers are doing."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
import ray
from ray.data import Dataset
from ray.exceptions import RayError

from pipeline import run as running
from pipeline.cluster import stages, writers
from pipeline.cluster.gather import gather
from pipeline.cluster.ray_internals import label_option
from pipeline.cluster.run_work import RunWork, labels
from pipeline.errors import ClusterError, ModelError, OvertakenError
from pipeline.planning import claim
from pipeline.planning.account import Progress
from pipeline.run import run
from tests.support import hanging, lakes, leftovers, staging
from tests.support.hanging import ASLEEP, HELD, HOUR_S, STUCK

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_cluster")]

BLOCK, LAST = 8, 20
"""Rows of a block, and blocks of the last kind: as long as some wait, decoders do, too."""


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.02)


class Silent:
    """A server that takes requests and never answers."""

    def __init__(self) -> None:
        self._server, self._held = socket.create_server(("127.0.0.1", 0)), list[socket.socket]()
        self.uri = f"http://127.0.0.1:{self._server.getsockname()[1]}/image.jpg"
        self.asked = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self._held.append(self._server.accept()[0])
                self.asked = True

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for one in [self._server, *self._held]:
            one.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    server = Silent()
    yield server
    server.close()


HANGING = staging.with_actors(hanging.SleepingDecoder, hanging.HangingPredictor)


class Hanging(threading.Event):
    """A run that commits one block and starts to write another. Then its decoder and its engine hang.

    The run asks this event whether it should stop. Once everything hangs, the event calls `ends`.
    """

    def __init__(self, folder: Path, silent: Silent, model: Path, last: str, *overrides: str) -> None:
        super().__init__()
        self.folder, self.last, self.silent = folder, last, silent
        (image,) = lakes.folder_of_images(folder / "images", 1)
        kinds = {"1 first": str(image), HELD: str(image), STUCK: str(image)}
        kinds |= {ASLEEP: str(image)} if last == "asleep" else {"4 silent": silent.uri}
        rows = [
            {"image_id": f"{kind} {number}", "uri": uri, "dataset": kind}
            for kind, uri in kinds.items()
            for number in range(BLOCK * (LAST if kind[0] == "4" else 1))
        ]
        manifest = lakes.write_manifest(folder / "manifest.parquet", rows)
        self.config = lakes.settings(manifest, model, folder / "out", "output.commit_interval_s=1", *overrides)
        self.committed, self.ends, self.fails = 0, _nothing, False

    def go(self, ends: Callable[["Hanging"], None]) -> None:
        self.ends = ends
        run(self.config, stop=self, on_progress=self._progressed, stages=HANGING)

    def tell(self) -> None:
        """The write that waits may go on."""
        (self.folder / hanging.WORD).touch()

    def is_set(self) -> bool:
        last = (self.folder / ASLEEP).exists() if self.last == "asleep" else self.silent.asked
        held = (self.folder / HELD).exists()
        if self.committed and held and (self.folder / STUCK).exists() and last:
            ends, self.ends = self.ends, _nothing
            ends(self)
        return super().is_set()

    def _progressed(self, progress: Progress) -> None:
        self.committed = progress.account.total.ok
        if self.fails and self.committed == 2 * BLOCK:
            raise ModelError("The model is gone.")


def _nothing(job: Hanging) -> None: ...


def _stop(job: Hanging) -> None:
    job.tell()
    job.set()


def _interrupt(job: Hanging) -> None:
    job.tell()
    signal.raise_signal(signal.SIGINT)


def _fail(job: Hanging) -> None:
    job.fails = True
    job.tell()


def _overtake(job: Hanging) -> None:
    table = claim.resolve_target(job.config).table
    assert table is not None
    assert table.claim("another-run", []) is not None
    job.tell()


@pytest.fixture
def workers_that_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "block_rows", lambda rate, **_: BLOCK)
    monkeypatch.setattr(writers, "write_task", hanging.write_when_told)


ENDS: dict[str, tuple[Callable[[Hanging], None], type[BaseException] | None]] = {
    "stopped": (_stop, None),
    "interrupted": (_interrupt, KeyboardInterrupt),
    "failed": (_fail, ModelError),
    "overtaken": (_overtake, OvertakenError),
}


WRITTEN = {"overtaken": (1, 1), "interrupted": (1, 2)}
"""The least and the largest number of committed blocks: the second one was gathered, but may not be written."""


@pytest.mark.usefixtures("workers_that_hang")
@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left_of_a_run_whose_workers_hang_and_the_next_job_has_the_cluster(
    end: str, model: Path, tmp_path: Path, silent: Silent
) -> None:
    ends, error = ENDS[end]
    for last in ("asleep", "silent"):  # the second is the next job of the first
        (tmp_path / last).mkdir()
        job = Hanging(tmp_path / last, silent, model, last)
        with pytest.raises(error) if error else nullcontext():
            job.go(ends)
        assert leftovers.found(patience_s=3) == []
        done = len(lakes.predictions(tmp_path / last / "out", "image_id"))
        least, most = WRITTEN.get(end, (2, 2))
        assert least * BLOCK <= done <= most * BLOCK


@pytest.mark.usefixtures("workers_that_hang")
def test_nothing_is_left_of_a_run_whose_actors_found_no_place(model: Path, tmp_path: Path, silent: Silent) -> None:
    sizes = "workers.decoders={min_size: 3, max_size: 4}"  # a CPU each, and there are two
    job = Hanging(tmp_path, silent, model, "asleep", sizes, "workers.wait_s=3")
    with pytest.raises(ClusterError, match="Ray cannot place"):
        run(job.config, stages=HANGING)
    assert leftovers.found() == []  # an actor that was being started may end its start first


def test_nothing_is_left_of_a_run_whose_plan_cannot_be_read(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "read_pending", hanging.never_read)
    lakes.folder_of_images(tmp_path / "images", 1)
    config, stop = lakes.settings(tmp_path / "images", model, tmp_path / "out"), threading.Event()

    def stop_when_it_sleeps() -> None:
        wait_for(lambda: [*tmp_path.rglob("*.asked")], "reader")
        stop.set()

    waiting = threading.Thread(target=stop_when_it_sleeps)
    waiting.start()
    assert run(config, stop=stop).account.total.left == 1
    waiting.join()
    assert leftovers.found(patience_s=3) == []


_sleeping = ray.remote(num_cpus=1)(hanging.sleep)
_waiting = ray.remote(num_cpus=0)(hanging.sleep)


def test_sleeping_tasks_and_tasks_that_wait_for_them_end_with_their_run() -> None:
    with RunWork("a run") as work:
        slept = work.task(_sleeping.remote(HOUR_S))
        waited = work.task(_waiting.remote(slept))
        wait_for(lambda: leftovers.found(patience_s=0), "task")
        work.cancel_tasks()
        late = work.task(_sleeping.remote(HOUR_S))
    assert leftovers.found(patience_s=3) == []
    for ref in (slept, waited, late):
        with pytest.raises(RayError):
            ray.get(ref, timeout=5)


def test_starting_tasks_after_all_were_cancelled_does_not_block() -> None:
    with RunWork("a run") as work:
        work.cancel_tasks()
        began = time.monotonic()
        late = [work.task(_waiting.remote(HOUR_S)) for _ in range(20)]
        assert time.monotonic() - began < 1
    for ref in late:
        with pytest.raises(RayError):
            ray.get(ref, timeout=5)


def test_the_result_of_a_task_is_returned_and_its_error_raised() -> None:
    with RunWork("a run") as work:
        assert work.result(ray.put(7)) == 7
        with pytest.raises(RayError, match="negative"):
            work.result(_sleeping.remote(-1))


def test_a_task_that_has_finished_is_not_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would end the process if that came just after the task's end."""
    cancelled = list[ray.ObjectRef]()
    monkeypatch.setattr(ray, "cancel", lambda ref, force: cancelled.append(ref))
    with RunWork("a run") as work:
        ref = work.task(_sleeping.remote(0))
        ray.get(ref)
        work.cancel(ref)
    assert cancelled == []


def test_actors_of_another_run_are_left_alone() -> None:
    sleeper = ray.remote(num_cpus=0)(hanging.Sleeper)
    mine, others = (sleeper.options(**label_option(labels(run))).remote() for run in ("mine", "another's"))
    asleep = [one.sleep.remote() for one in (mine, others)]
    with RunWork("mine"):
        assert ray.wait(asleep, timeout=0.5)[0] == []
    with pytest.raises(RayError):
        ray.get(asleep[0], timeout=5)
    assert ray.wait([asleep[1]], timeout=0.5)[0] == []
    ray.kill(others)


def _in_two_blocks() -> Dataset:
    return ray.data.range(2, override_num_blocks=2).map_batches(hanging.second_never)


def test_a_stop_does_not_wait_for_a_block_that_does_not_come() -> None:
    """The stages end as well: Ray ends a process in which a thread still calls it after the shutdown."""
    stop, waiting = threading.Event(), _in_two_blocks()
    with RunWork("mine") as mine, RunWork("another's") as others:
        theirs = others.blocks(waiting)
        next(theirs)
        groups = gather(
            mine.blocks(_in_two_blocks()), rows=1, age_s=60, stopped=stop.is_set, interrupt=mine.interrupt
        )
        assert [count for _, count in next(groups)] == [1]
        threading.Timer(0.5, stop.set).start()
        started = time.monotonic()
        assert list(groups) == []
        assert time.monotonic() - started < 10
        names = [thread.name for thread in threading.enumerate()]
        names = [name for name in names if name.startswith(("gather", "Streaming"))]
        assert names == [f"StreamingExecutor-{waiting.get_dataset_id()}"]
        others.interrupt()
        assert list(theirs) == []
