"""What a run has started on a cluster, and its end: no task and no actor outlives the run, whatever it is doing.

Ray itself waits for a call before it takes back the actor or the worker that makes it. A decoder that sleeps, a
store that does not answer or an engine that hangs would keep its place on a cluster that lives on. So actors are
killed, and tasks are cancelled by force.

It does not know what the stages do.
"""

import threading
import time
from contextlib import suppress
from typing import Any

import ray
from ray import ObjectRef
from ray.data import Dataset
from ray.exceptions import RayError

from pipeline.cluster import ray_internals
from pipeline.cluster.ray_internals import Block, Blocks

__all__ = ["Block", "Blocks", "Started", "labels"]

END_S = 60.0
"""How long to wait for Ray Data's thread to end."""
GONE_S = 10.0
"""How long to wait for what was killed to be gone."""
LOOK_S = 0.05
"""How often it is looked whether it is gone."""
SUBMIT_S = 0.1
"""How old a task must be to be cancelled: by then Ray has submitted it, see `Started._cancel`."""
_RUN = "lakelens_run"


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
        ray_internals.interrupt_calls_after_errors(dataset)
        blocks = ray_internals.output_blocks(dataset)
        try:
            for block in blocks:  # noqa: UP028 - `yield from` would close them before it interrupts the stages
                yield block
        except GeneratorExit:
            self.interrupt()
            raise
        finally:
            blocks.close()  # lets go of the executor, which waits for its thread, but not long
            ray_internals.join_executions([dataset], END_S)

    def interrupt(self) -> None:
        """End the stages. Any thread may call this. `blocks` then gives no further block."""
        ray_internals.stop_executions(self._datasets)

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
        ray_internals.wait_for(unfinished, GONE_S)
        deadline = time.monotonic() + GONE_S
        with suppress(RayError, OSError):  # the cluster itself may be gone
            while (alive := ray_internals.labelled_actors(_RUN, self._run_id)) and time.monotonic() < deadline:
                for actor in alive:
                    ray_internals.kill_actor(actor)
                time.sleep(LOOK_S)
