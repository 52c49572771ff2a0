"""The stages and tasks of a run on Ray, and their end: no task and no actor outlives the run.

Ray itself waits for a running call before it frees the actor or the worker. A decoder that sleeps, a store that
does not answer or an engine that hangs would keep its resources on a cluster that lives on. So a run kills its
actors, and cancels its tasks by force.

This module does not know what the stages do.
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
from pipeline.cluster.ray_internals import Blocks

END_S = 60.0
"""Seconds to wait for Ray Data's thread to end."""
GONE_S = 10.0
"""Seconds to wait for killed actors and cancelled tasks to be gone."""
POLL_S = 0.05
"""Seconds between two looks for actors that are still there."""
SUBMIT_S = 0.1
"""Age in seconds at which a task may be cancelled: Ray has submitted it by then, see `RunWork.cancel`."""
_RUN = "lakelens_run"


def labels(run_id: str) -> dict[str, str]:
    """Return the labels that a run puts on its actors. `RunWork` finds its actors by them."""
    return {_RUN: run_id}


class RunWork:
    """The stages of Ray Data and the tasks that one run has started. All of them end with the context."""

    def __init__(self, run_id: str) -> None:
        self._run_id, self._datasets = run_id, list[Dataset]()
        self._unfinished: dict[ObjectRef, float] = {}  # with its start time
        self._cancelled = False
        self._late = list[threading.Timer]()  # each cancels a task that started after `cancel_tasks`

    def __enter__(self) -> "RunWork":
        return self

    def __exit__(self, *raised: object) -> None:
        self.end()

    def blocks(self, dataset: Dataset) -> Blocks:
        """Run the stages of a dataset, and give references to their output blocks as they appear.

        The stages have stopped when this generator is closed. Ray would end the process if one of their threads
        called it after `ray.shutdown`. Raises: what a stage raises.
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
            blocks.close()  # frees the executor, which waits only two seconds for its thread
            ray_internals.join_executions([dataset], END_S)

    def interrupt(self) -> None:
        """End the stages. Any thread may call this. `blocks` then gives no further block."""
        ray_internals.stop_executions(self._datasets)

    def task(self, ref: ObjectRef) -> ObjectRef:
        """Let a running task end with the run, and return it."""
        self._unfinished[ref] = time.monotonic()
        ref.future().add_done_callback(lambda _: self._unfinished.pop(ref, None))
        if self._cancelled:  # later, since the caller may start thousands, and must not wait for each
            late = threading.Timer(SUBMIT_S, self.cancel, [ref])
            late.start()
            self._late.append(late)
        return ref

    def result(self, ref: ObjectRef) -> Any:
        """Wait for a task, and return its result. Raises: what the task raises."""
        return ray.get(self.task(ref))

    def cancel_tasks(self) -> None:
        """Cancel the tasks that have not finished, and those that start later."""
        self._cancelled = True  # another thread may be about to start one
        for ref in reversed(list(self._unfinished)):
            self.cancel(ref)

    def cancel(self, ref: ObjectRef) -> None:
        """Cancel a task by force, unless it has finished.

        Ray 2.60 ends this process if a task is cancelled while it is being submitted, just after it has finished,
        or while its argument fails. So this waits until the task is submitted, and leaves a finished one alone.
        `cancel_tasks` cancels the newest first, before the tasks that they wait for.
        """
        age = time.monotonic() - self._unfinished.get(ref, 0.0)
        time.sleep(max(0.0, SUBMIT_S - age))
        if not ray.wait([ref], timeout=0, fetch_local=False)[0]:
            ray.cancel(ref, force=True)

    def end(self) -> None:
        """End everything, and wait until it is gone."""
        unfinished = list(self._unfinished)
        self.cancel_tasks()  # before the stages: tasks may wait for their blocks
        for late in self._late:
            late.join()  # a call after `ray.shutdown` would start Ray again
        self.interrupt()
        ray_internals.wait_for(unfinished, GONE_S)
        deadline = time.monotonic() + GONE_S
        with suppress(RayError, OSError):  # the cluster itself may be gone
            while (alive := ray_internals.labelled_actors(_RUN, self._run_id)) and time.monotonic() < deadline:
                for actor in alive:
                    ray_internals.kill_actor(actor)
                time.sleep(POLL_S)
