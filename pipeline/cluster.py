"""Connect to Ray, see what it has, and size the pools. It does not know what the pools do."""

import logging
import math
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy
from ray.exceptions import RayError

from pipeline import errors
from pipeline.config import PoolConfig, WorkersConfig
from pipeline.errors import ClusterError, LakeLensError

READERS = 2
"""Tasks that read the plan at once: each gives rows a hundred times faster than they are decoded."""
PREDICTOR_BYTES = 50e6
"""Memory that a CPU predictor asks Ray for: a token, for which Ray spreads them evenly over the nodes."""
DECODERS = 2
"""At least so many: while a file that hangs its decoder runs into the time limit, the others go on."""
WORKERS = 16
"""Processes that a cluster of our own keeps for the next task, besides one for each CPU."""
LOOK_S = 5.0
"""How often it is looked whether anything was finished."""
CONNECT_TIMEOUT_S = 10.0
"""How long a cluster's port may take to answer; Ray itself tries for five minutes."""


@dataclass(frozen=True)
class Resources:
    """What the alive nodes have in all, and the CPUs of the smallest node that has any."""

    cpus: float
    gpus: float
    nodes: int
    smallest_node_cpus: float
    tpus: float = 0.0

    def of(self, accelerator: str | None) -> float:
        """How many GPUs, or TPU chips."""
        return {"GPU": self.gpus, "TPU": self.tpus}.get(accelerator or "", 0.0)


@dataclass(frozen=True)
class Pool:
    """Actors of one stage: how many, and what each asks Ray for. `accelerator` is one GPU or TPU chip."""

    size: PoolConfig
    num_cpus: float = 0.0
    accelerator: Literal["GPU", "TPU"] | None = None
    memory: float = 0.0

    @property
    def at_first(self) -> int:
        """Actors that the pool starts with."""
        return self.size.initial_size or self.size.min_size


@dataclass(frozen=True)
class Pools:
    """The pools of both stages, and the CPU threads that one predictor computes with."""

    decoders: Pool
    predictors: Pool
    predictor_threads: int


@contextmanager
def connected(address: str | None) -> Iterator[Resources]:
    """Join the cluster at `address` or $RAY_ADDRESS, else start one on this machine; leave it afterwards.

    Raises: ClusterError.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():  # the process that called us owns the connection
        yield _resources()
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Else Ray ends a process that was idle for a second, and every write of files waits for a new one to start.
    os.environ.setdefault("RAY_num_workers_soft_limit", str(WORKERS + (os.cpu_count() or 1)))
    # Ray Data starts its actors in a way that Ray's own core logs as an error, every time.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    _check_address(address)
    local: dict[str, Any] = {} if address else {"include_dashboard": False}
    if not address and os.cpu_count() == 1:  # else Ray counts, and knows a container's limits
        local["num_cpus"] = 2
    try:
        with _hushed(), _signals_kept():
            ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **local)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = f"the Ray cluster at {address}" if address else "a Ray cluster on this machine"
        raise ClusterError(f"Cannot connect to {where}: {str(error).strip().splitlines()[0]}.") from error
    try:
        _quiet()
        yield _resources()
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Raises: ClusterError at once for an address where nothing answers."""
    if address and "://" in address:
        raise ClusterError(
            f"Cannot run through {address}, the address of a dashboard or of a Ray client; give the head node's "
            "own, host:6379."
        )
    host, colon, port = (address or "").rpartition(":")
    if not colon or not port.isdigit():  # "auto", "local"
        return
    require_answer(host, int(port), f"the Ray cluster at {address}")


def require_answer(host: str, port: int, where: str) -> None:
    """Raises: ClusterError if nothing answers at a port; Ray would try for minutes."""
    try:
        socket.create_connection((host.strip("[]"), port), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"Cannot connect to {where}: nothing answers there.") from error


def pools(
    workers: WorkersConfig, resources: Resources, accelerator: Literal["GPU", "TPU"] | None = "GPU"
) -> Pools:
    """Sizes for the stages, from the config or from what the cluster has.

    One predictor for each of the engine's accelerators, else for each node, and a decoder for each CPU. Only
    decoders ask for CPUs, so that no stage takes what another one needs to start, wherever Ray places them. On
    CPUs decoding is a few per cent of the work: that the operating system shares the cores loses less than
    splitting them. Raises: ClusterError if there is no CPU at all.
    """
    if not resources.nodes:
        raise ClusterError("The Ray cluster has no node with a CPU yet; start one, and run again.")
    devices = int(resources.of(accelerator))
    size = _size(workers.predictors, devices or resources.nodes)
    if accelerator == "TPU" and workers.predictors == "auto":  # Ray Data does not count them: nothing to scale by
        size = PoolConfig(min_size=size.max_size, max_size=size.max_size)
    predictors = Pool(size, accelerator=accelerator) if devices else Pool(size, memory=PREDICTOR_BYTES)
    size = _size(workers.decoders, max(DECODERS, int(resources.cpus)))
    num_cpus = min(1.0, math.floor(100 * resources.cpus / size.max_size) / 100)  # Ray counts in hundredths
    return Pools(Pool(size, num_cpus), predictors, max(1, int(resources.smallest_node_cpus)))


_WHOLE_BLOCKS = {"batch_size": None, "batch_format": "pyarrow"}


def stage(pool: Pool) -> dict[str, Any]:
    """How Ray Data runs a pool: whole blocks in, whole blocks out, actors ready from the start."""
    size = pool.size
    return {
        "compute": ActorPoolStrategy(min_size=size.min_size, max_size=size.max_size, initial_size=pool.at_first),
        "num_cpus": pool.num_cpus,
        "num_gpus": 1 if pool.accelerator == "GPU" else 0,
        "memory": pool.memory,
        **({"resources": {"TPU": 1}} if pool.accelerator == "TPU" else {}),
        **_WHOLE_BLOCKS,
    }


def pooled(rows: Dataset, actor: type, pool: Pool, **settings: Any) -> Dataset:
    """The rows as blocks that went through `actor(**settings)`, one of the pool's."""
    # `map_batches` itself refuses whole blocks for actors with GPUs.
    return rows.map_batches_internal(actor, fn_constructor_kwargs=settings, **stage(pool))


def reading(files: int) -> dict[str, Any]:
    """How Ray Data runs the tasks that read the plan: beside the pools, whatever those have taken."""
    return {"compute": TaskPoolStrategy(min(READERS, files)), "num_cpus": 0, **_WHOLE_BLOCKS}


def in_blocks(dataset: Dataset, rows: int) -> Dataset:
    """In blocks of `rows`, cut by tasks that ask for no CPU: `Dataset.repartition` has no option for that."""
    cut = dataset.repartition(target_num_rows_per_block=rows)
    cut._logical_plan.dag.ray_remote_args["num_cpus"] = 0
    return cut


@contextmanager
def watched(pools: Pools, wait_s: float, give_up: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Gives what is to be called whenever something was finished. If nothing was for `wait_s`, and the alive nodes
    have less than the pools ask for, it calls `give_up` from another thread, and in the end raises ClusterError.

    An actor whose node died waits for a place, and Ray waits for what it was given, for ever.
    """
    moved_s, ended = time.monotonic(), threading.Event()
    lacking: list[str] = []

    def moved() -> None:
        nonlocal moved_s
        moved_s = time.monotonic()

    def look() -> None:
        while not ended.wait(min(wait_s, LOOK_S)):
            if time.monotonic() > moved_s + wait_s and (said := _lacking(pools, _resources())):
                lacking.append(f"Nothing was finished for {wait_s:g} s, and {said}")
                return give_up()

    watch = threading.Thread(target=look, daemon=True, name="watch")
    watch.start()
    try:
        yield moved
    finally:
        ended.set()
        watch.join()
        if lacking:
            raise ClusterError(lacking[0])


def _lacking(pools: Pools, has: Resources) -> str | None:
    """A sentence, if not all actors have a place."""
    kind = pools.predictors.accelerator
    cpus = pools.decoders.num_cpus * pools.decoders.at_first
    devices = pools.predictors.at_first if kind else 0
    if cpus <= has.cpus + 0.01 and devices <= has.of(kind):
        return None
    return (
        f"the workers ask for {cpus:g} CPUs and {devices} {kind or 'GPU'}s, while the nodes that are alive "
        f"({has.nodes}) have {has.cpus:g} and {has.of(kind):g}. What was committed stays; run again to go on with "
        "the nodes there are."
    )


@contextmanager
def explained() -> Iterator[None]:
    """Turn what Ray raises into the LakeLensError that a worker raised, or into a ClusterError."""
    try:
        yield
    except RayError as error:
        raise _explain(error) from error


def _explain(error: RayError) -> LakeLensError:
    """Ray gives only the text of what a worker raised: its last "module.Name: sentence" before Ray's own."""
    raised = re.findall(r"^([\w.]+\.)?(\w+(?:Error|Exception)): (.+)$", str(error), flags=re.MULTILINE)
    for module, name, sentence in raised:
        kind = getattr(errors, name, None) if module == f"{errors.__name__}." else None
        if isinstance(kind, type) and issubclass(kind, LakeLensError):
            return kind(sentence.strip())
    said = ": ".join(raised[0][1:]) if raised else str(error).strip().splitlines()[0]
    return ClusterError(f"Ray lost the work: {said.rstrip('.')}.")


def _size(asked: PoolConfig | str, fitting: int) -> PoolConfig:
    if isinstance(asked, PoolConfig):
        return asked
    return PoolConfig(min_size=1, max_size=fitting, initial_size=fitting)


def _resources() -> Resources:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [node.get("CPU", 0.0) for node in nodes]
    return Resources(
        cpus=sum(cpus),
        gpus=sum(node.get("GPU", 0.0) for node in nodes),
        tpus=sum(node.get("TPU", 0.0) for node in nodes),
        nodes=sum(1 for count in cpus if count > 0),
        smallest_node_cpus=min((count for count in cpus if count > 0), default=1.0),
    )


@contextmanager
def _hushed() -> Iterator[None]:
    """Ray's C++ core writes straight to file descriptor 2 as it starts; what goes wrong comes as exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own on SIGTERM, which aborts the process; the caller's stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _quiet() -> None:
    """Ray Data's bars and console log would drown the progress line; errors come through as exceptions, and
    all of the log stays in Ray's own log folder."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL + 1)
