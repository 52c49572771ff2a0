"""Every use of Ray's private and developer APIs, one function each. They are known to hold for Ray 2.60.

No other module of the library imports them. `tests/contracts/test_ray_internals.py` calls each function, and says
what breaks if another Ray behaves differently. This module knows only Ray: no runs, stages or tables.
"""

import logging
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import ActorID, ObjectRef
from ray._common.usage import usage_lib
from ray._common.utils import get_default_ray_temp_dir
from ray._private import ray_constants, worker as ray_worker
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._private.state import state
from ray._private.utils import check_version_info
from ray._private.worker import global_worker
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined]
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.core.generated.gcs_pb2 import ActorTableData
from ray.data import DataContext, Dataset
from ray.data._internal.execution.execution_callback import ExecutionCallback

CALLS_S = 10.0
"""Seconds that a failed execution waits for the calls that it has interrupted."""
NEVER = -1.0
"""A utilisation that no pool falls below. Ray Data shrinks a pool below its threshold."""

Block = tuple[ObjectRef, int]
"""A reference to an Arrow table, and its number of rows."""
Blocks = Generator[Block, None, None]


@dataclass(frozen=True)
class Demand:
    """Tasks or actors of one shape that Ray has not placed yet. A shape maps Ray's resource names to amounts."""

    count: int
    shape: Mapping[str, float]


@dataclass(frozen=True)
class FreeResources:
    """The resources of one live node that nothing uses now."""

    host: str
    amounts: Mapping[str, float]


@dataclass(frozen=True)
class ClusterStatus:
    """What Ray's autoscaler knows, also where no autoscaler runs."""

    unplaced: tuple[Demand, ...]
    free: tuple[FreeResources, ...]


def sends_token() -> bool:
    """Return whether this process sends a token to a cluster.

    Ray's core ends a process that has to send one and has none.
    """
    return bool(is_token_auth_enabled())


def has_token() -> bool:
    """Return whether this process has a token. Ray has no public question for it.

    Raises: AuthenticationError if the named token file cannot be read or is empty.
    """
    return bool(AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True))


def reload_authentication() -> None:
    """Read the mode and the token from the environment again. Ray itself reads both only once per process.

    The mode comes first: otherwise a thread of Ray that still works would look for a token that is gone.
    """
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def require_same_versions(address: str) -> None:
    """Ask the cluster at `address`, host:port, for its versions.

    `ray.init` asks as well, but it retries for 20 seconds where the cluster refuses, or ends the process.
    Raises: RuntimeError with both pairs of versions if Ray or Python differ; RayError if the cluster refuses.
    """
    versions = usage_lib.get_cluster_metadata(GcsClient(address=address))
    if versions:
        check_version_info(versions, "here")


def default_temporary_folder() -> Path:
    """Return the folder that `ray.init` would use. Its path may be too long for sockets."""
    return Path(get_default_ray_temp_dir()).absolute()


def temporary_folder_option(folder: Path) -> dict[str, str]:
    """Return the option of `ray.init` for its temporary folder. Otherwise only an environment variable sets it."""
    return {"_temp_dir": str(folder)}


def ignore_uv() -> None:
    """Keep Ray from uploading the folder of `uv run`, and from building its environment again for workers.

    Ray reads its variable for this when it is imported, which is too early for us to set it.
    """
    ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False


def silence_data() -> None:
    """Switch off Ray Data's progress bars and console log. All of the log stays in Ray's own log folder."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL + 1)


@contextmanager
def silenced_retries() -> Iterator[None]:
    """Drop what Ray prints on stdout about each task that it starts again; everything else is printed.

    Ray says so also of tasks that a run has ended itself. `log_to_driver=False` has no effect on it.
    """
    printed = ray_worker.print_to_stdstream

    def print_others(data: dict[str, Any], ignore_prefix: bool) -> None:
        if not any("retries remaining, so the task will be retried" in line for line in data["lines"]):
            printed(data, ignore_prefix)

    ray_worker.print_to_stdstream = print_others
    try:
        yield
    finally:
        ray_worker.print_to_stdstream = printed


def silence_jobs() -> None:
    """Switch off what the client of the Jobs API logs about every package and socket."""
    for name in ("ray.dashboard", "ray._private.runtime_env"):
        logging.getLogger(name).setLevel(logging.WARNING)


def live_nodes() -> list[dict[str, float]]:
    """Return what each live node has, by Ray's resource names."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def cluster_status(address: str) -> ClusterStatus:
    """Ask the cluster at `address`, host:port, what it cannot place. The public calls only sum free resources.

    Raises: what Ray raises if the cluster does not answer.
    """
    status = get_cluster_status(address)
    demands = status.resource_demands.ray_task_actor_demand
    nodes = [*status.active_nodes, *status.idle_nodes]
    return ClusterStatus(
        tuple(Demand(one.count, dict(one.bundle)) for demand in demands for one in demand.bundles_by_count),
        tuple(
            FreeResources(
                node.ip_address, {one.resource_name: one.total - one.used for one in node.resource_usage.usage}
            )
            for node in nodes
        ),
    )


def label_option(labels: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the option of an actor for its labels, by which `labelled_actors` finds it."""
    return {"_labels": dict(labels)}


def labelled_actors(name: str, value: str) -> list[ActorID]:
    """Return this job's actors with a label that are alive, starting or unplaced.

    Ray Data gives no handles of the actors that it starts, and the public State API needs the dashboard.
    Raises: RayError if the cluster does not answer.
    """
    job = ray.JobID(bytes.fromhex(ray.get_runtime_context().get_job_id()))
    table = map(ActorTableData.FromString, state._connect_and_get_accessor().get_actor_table(job, None))
    return [
        ActorID(actor.actor_id)
        for actor in table
        if actor.state != ActorTableData.DEAD and actor.labels.get(name) == value
    ]


def kill_actor(actor: ActorID) -> None:
    """Kill an actor that may not restart. `ray.kill` takes only a handle."""
    global_worker.core_worker.kill_actor(actor, True)


def map_whole_blocks(rows: Dataset, actor: type, arguments: Mapping[str, Any], **options: Any) -> Dataset:
    """Send whole blocks through `actor(**arguments)`, with the options of `Dataset.map_batches`.

    `map_batches` itself refuses whole blocks (`batch_size=None`) for actors with GPUs.
    """
    whole = {"batch_size": None, "batch_format": "pyarrow"}
    return rows.map_batches_internal(actor, fn_constructor_kwargs=dict(arguments), **whole, **options)


def keep_actors(dataset: Dataset) -> None:
    """Keep Ray Data from ending actors of a pool that may get more work.

    By default all but one end when the first block arrives, and start and load their model again as more arrive.
    """
    dataset.context.autoscaling_config.actor_pool_util_downscaling_threshold = NEVER


def ask_for_no_cpu(dataset: Dataset) -> None:
    """Let the tasks of a dataset's last stage run without a free CPU. `Dataset.repartition` has no such option."""
    dataset._logical_plan.dag.ray_remote_args["num_cpus"] = 0


def output_blocks(dataset: Dataset) -> Blocks:
    """Run the stages of a dataset and give references to its output blocks as they appear.

    Rows stay where they are: the public iterators fetch them. Raises: what a stage raises.
    """
    for bundle in dataset.iter_internal_ref_bundles():
        for block in bundle.blocks:
            yield block.ref, block.metadata.num_rows


def stop_executions(datasets: Iterable[Dataset]) -> None:
    """End the stages of datasets at once, whatever they are doing. Any thread may call this."""
    for executor in _executors(datasets):
        executor.shutdown(force=True)


def join_executions(datasets: Iterable[Dataset], timeout_s: float) -> None:
    """Wait for the threads in which Ray Data runs datasets. One that outlives Ray ends the process."""
    for executor in _executors(datasets):
        executor.join(timeout_s)


def _executors(datasets: Iterable[Dataset]) -> list[Any]:
    """Find the executors of datasets. Each is a thread, and only its name identifies it."""
    names = {f"StreamingExecutor-{dataset.get_dataset_id()}" for dataset in datasets}
    return [thread for thread in threading.enumerate() if thread.name in names]


def interrupt_calls_after_errors(dataset: Dataset) -> None:
    """After an error, end the calls that are under way. Ray Data would wait for them, and has no option for it."""
    dataset.context.custom_execution_callback_classes.append(_InterruptingShutdown)


class _InterruptingShutdown(ExecutionCallback):  # type: ignore[misc]
    """Turn an executor's shutdown after an error into a forced one.

    Without an error the actors end by themselves: Ray may need them once more, for a block that was lost with its
    node before it was written.
    """

    def before_execution_starts(self, executor: Any) -> None:
        """Replace the executor's shutdown, which Ray Data calls before it passes an error on."""
        shut_down = executor.shutdown

        def shutdown(force: bool, exception: Exception | None = None) -> None:
            calls = [call.get_waitable() for stage in executor._topology for call in stage.get_active_tasks()]
            forced = force or exception is not None
            shut_down(force=forced, exception=exception)
            if forced:
                ended = (call.completed() if hasattr(call, "completed") else call for call in calls)
                wait_for(ended, CALLS_S)

        executor.shutdown = shutdown


def wait_for(calls: Iterable[ObjectRef], timeout_s: float) -> None:
    """Wait until each call has ended, one way or another."""
    if waiting := list(calls):
        ray.wait(waiting, num_returns=len(waiting), timeout=timeout_s, fetch_local=False)
