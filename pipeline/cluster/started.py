"""What a run has started on a cluster, and its end: no task and no actor outlives the run, whatever it is doing.

Ray itself waits for a call before it takes back the actor or the worker that makes it. A decoder that sleeps, a
store that does not answer or an engine that hangs would keep its place on a cluster that lives on. So actors are
killed, and tasks are cancelled by force.

This module alone uses the executor of Ray Data and Ray's table of actors, which are developer or private APIs of
Ray 2.60; tests/cluster/test_started.py fails where they change. It does not know what the stages do.
"""

import threading
import time
from collections.abc import Generator, Iterable
from contextlib import suppress
from typing import Any

import ray
from ray import ActorID, ObjectRef
from ray._private.state import state
from ray._private.worker import global_worker
from ray.core.generated.gcs_pb2 import ActorTableData
from ray.data import Dataset
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.exceptions import RayError

END_S = 60.0
"""How long to wait for Ray Data's thread to end."""
GONE_S = 10.0
"""How long to wait for what was killed to be gone."""
LOOK_S = 0.05
"""How often it is looked whether it is gone."""
SUBMIT_S = 0.1
"""How old a task must be to be cancelled: by then Ray has submitted it, see `Started._cancel`."""
_RUN = "lakelens_run"

Block = tuple[ObjectRef, int]
"""A reference to an Arrow table, and its number of rows."""
Blocks = Generator[Block, None, None]


def labels(run_id: str) -> dict[str, str]:
    """Give the labels that a run puts on its actors. `Started` finds the actors by them."""
    return {_RUN: run_id}


class Started:
    """The stages of Ray Data and the tasks that one run has started. Leaving the context ends all of them."""

    def __init__(self, run_id: str) -> None:
        self._run_id, self._datasets = run_id, list[Dataset]()
        self._unfinished: dict[ObjectRef, float] = {}  # and when each was started
        self._cancelled = False
        self._late = list[threading.Timer]()

    def __enter__(self) -> "Started":
        return self

    def __exit__(self, *raised: object) -> None:
        self.end()

    def blocks(self, dataset: Dataset) -> Blocks:
        """Run the stages of a dataset and give their output blocks as they appear; rows stay where they are.

        When it is closed the stages have stopped: once Ray is shut down it ends a process in which a thread still
        asks it for anything. Raises: what a stage raises.
        """
        self._datasets.append(dataset)
        dataset.context.custom_execution_callback_classes.append(_Forceful)
        bundles = None
        try:
            bundles = dataset.iter_internal_ref_bundles()  # waits for the first one
            for bundle in bundles:
                for block in bundle.blocks:
                    yield block.ref, block.metadata.num_rows
        except GeneratorExit:
            self.interrupt()
            raise
        finally:
            del bundles  # lets go of the executor, which waits for its thread, but not long
            for executor in _executors([dataset]):
                executor.join(END_S)

    def interrupt(self) -> None:
        """End the stages. Any thread may call this. `blocks` then gives no further block."""
        for executor in _executors(self._datasets):
            executor.shutdown(force=True)

    def task(self, ref: ObjectRef) -> ObjectRef:
        """Take a running task, which ends with the run."""
        self._unfinished[ref] = time.monotonic()
        ref.future().add_done_callback(lambda _: self._unfinished.pop(ref, None))
        if self._cancelled:  # its caller does not wait until it can be cancelled: there may be thousands
            late = threading.Timer(SUBMIT_S, self._cancel, [ref])
            late.start()
            self._late.append(late)
        return ref

    def result(self, ref: ObjectRef) -> Any:
        """The result of a task. Raises: what the task raises."""
        return ray.get(self.task(ref))

    def cancel_tasks(self) -> None:
        """Cancel the tasks that have not finished, and those to come."""
        self._cancelled = True  # another thread may be about to start one
        for ref in reversed(list(self._unfinished)):
            self._cancel(ref)

    def _cancel(self, ref: ObjectRef) -> None:
        """Cancel a task by force.

        Ray 2.60 ends this process if a task is cancelled while it is being submitted, just after it has finished,
        or while its argument fails. So a task is first left to be submitted, one that has finished is left alone,
        and the newest are cancelled before those that they wait for.
        """
        age = time.monotonic() - self._unfinished.get(ref, 0.0)
        time.sleep(max(0.0, SUBMIT_S - age))
        if not ray.wait([ref], timeout=0, fetch_local=False)[0]:
            ray.cancel(ref, force=True)

    def end(self) -> None:
        """End everything, and wait until it is gone."""
        unfinished = list(self._unfinished)
        self.cancel_tasks()  # before the stages, whose blocks they may wait for
        for late in self._late:
            late.join()  # once Ray is shut down, to ask it for anything starts it again
        self.interrupt()
        _wait(unfinished)
        deadline = time.monotonic() + GONE_S
        with suppress(RayError, OSError):  # the cluster itself may be gone
            while (alive := _actors(self._run_id)) and time.monotonic() < deadline:
                for actor in alive:
                    global_worker.core_worker.kill_actor(actor, True)
                time.sleep(LOOK_S)


def _executors(datasets: list[Dataset]) -> list[Any]:
    """Find the executors of datasets. Ray Data runs each dataset in a thread that has its name."""
    names = [f"StreamingExecutor-{dataset.get_dataset_id()}" for dataset in datasets]
    return [thread for thread in threading.enumerate() if thread.name in names]


class _Forceful(ExecutionCallback):  # type: ignore[misc]
    """After an error, the executor does not wait for the calls that are under way.

    Where the stages come to their end its actors still go by themselves: Ray may need them once more, to make a
    block again that was lost with its node before it was written.
    """

    def before_execution_starts(self, executor: Any) -> None:
        """Change what ends this executor, which Ray Data itself calls before anybody else hears of the error."""
        shut_down = executor.shutdown

        def shutdown(force: bool, exception: Exception | None = None) -> None:
            calls = [call.get_waitable() for stage in executor._topology for call in stage.get_active_tasks()]
            forced = force or exception is not None
            shut_down(force=forced, exception=exception)
            if forced:
                _wait(call.completed() if hasattr(call, "completed") else call for call in calls)

        executor.shutdown = shutdown


def _wait(calls: Iterable[ObjectRef]) -> None:
    """Until each has ended, one way or another."""
    if waiting := list(calls):
        ray.wait(waiting, num_returns=len(waiting), timeout=GONE_S, fetch_local=False)


def _actors(run_id: str) -> list[ActorID]:
    """The actors of a run that are alive, start, or wait for a place."""
    job = ray.JobID(bytes.fromhex(ray.get_runtime_context().get_job_id()))
    table = map(ActorTableData.FromString, state._connect_and_get_accessor().get_actor_table(job, None))
    return [
        ActorID(actor.actor_id)
        for actor in table
        if actor.state != ActorTableData.DEAD and actor.labels.get(_RUN) == run_id
    ]
