"""The pools of actors: how many, what each asks Ray for, how Ray Data runs them. It does not know what they do."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy

from pipeline.cluster import node_resources, ray_internals, started
from pipeline.cluster.node_resources import Accelerator, Resources
from pipeline.config import PoolConfig, WorkersConfig
from pipeline.errors import ClusterError, TableError

READERS = 2
"""Tasks that read the plan at once: each gives rows a hundred times faster than they are decoded."""
PREDICTOR_BYTES = 50e6
"""Memory that a CPU predictor asks Ray for: a token, for which Ray spreads them evenly over the nodes."""
NODE_SHARE = 0.51
"""Share of a node's memory that a CPU predictor asks for where the pool is to grow with the nodes."""
DECODERS = 2
"""At least so many: while a file that hangs its decoder runs into the time limit, the others go on."""
LOOK_S = 5.0
"""How often it is looked whether anything was finished."""


@dataclass(frozen=True)
class Pool:
    """Actors of one stage: how many, and what each asks Ray for: CPUs, the `share` of a GPU or a TPU chip, which
    is 0 for a predictor on CPUs, and bytes of memory."""

    size: PoolConfig
    num_cpus: float = 0.0
    accelerator: Accelerator | None = None
    share: float = 1.0
    memory: float = 0.0

    @property
    def at_first(self) -> int:
        """Actors that the pool starts with."""
        return self.size.initial_size or self.size.min_size

    @property
    def shape(self) -> dict[str, float]:
        """What one actor asks for, by Ray's names and in its units: CPUs, GPUs, chips, bytes."""
        asked = {"CPU": self.num_cpus, "memory": self.memory, (self.accelerator or "GPU"): 0.0}
        return asked | ({self.accelerator: self.share} if self.accelerator else {})


@dataclass(frozen=True)
class Pools:
    """The pools of both stages, and the CPU threads that one predictor computes with."""

    decoders: Pool
    predictors: Pool
    predictor_threads: int

    def for_blocks(self, count: int) -> "Pools":
        """Without the actors for which there would be no block: each takes seconds of a core to start."""
        return replace(self, decoders=_cut(self.decoders, count), predictors=_cut(self.predictors, count))


def offers(workers: WorkersConfig, now: Resources, kind: Accelerator) -> bool:
    """Whether predictors can have such accelerators: by the config, else by what the nodes have now."""
    return workers.device == kind.lower() or (workers.device == "auto" and now.of(kind) > 0)


def sized(workers: WorkersConfig, now: Resources, accelerator: Accelerator | None = "GPU") -> Pools:
    """Pools for the stages, from the config or from what the nodes have now, for an engine that uses such an
    `accelerator` where there is one.

    One predictor for each of the engine's accelerators, or share of one, else for each node; a decoder for each
    CPU. Only decoders ask for CPUs, so that no stage takes what another one needs to start, wherever Ray places
    them. On CPUs decoding is a few per cent of the work: that the operating system shares the cores loses less
    than splitting them. Raises: ClusterError if there is no CPU, or if `auto` has nothing to go by.
    """
    used = accelerator if accelerator and offers(workers, now, accelerator) else None
    if workers.device in ("gpu", "tpu") and not used:
        raise ClusterError(f"workers.device is {workers.device}, which the engine of this run does not use.")
    if not now.nodes and ("auto" in (workers.decoders, workers.predictors) or not used):
        raise ClusterError(
            "The Ray cluster has no node with a CPU yet; start one, or give workers.device, and workers.decoders "
            "and workers.predictors sizes for the nodes that it will have."
        )
    threads = max(1, int(now.smallest.cpus))
    return Pools(_decoders(workers, now), _predictors(workers, now, used), threads)


def _decoders(workers: WorkersConfig, now: Resources) -> Pool:
    """For a CPU each; a pool that does not grow has a place for all of them, if need be for a part of a CPU."""
    size = _size(workers.decoders, max(DECODERS, int(now.cpus)))
    if workers.decoders != "auto" and size.min_size < size.max_size:
        return Pool(size, 1.0)
    parts = (part / 100 for part in range(100, 0, -1))
    return Pool(size, next((part for part in parts if now.places(part) >= size.max_size), 0.01))


def _predictors(workers: WorkersConfig, now: Resources, accelerator: Accelerator | None) -> Pool:
    share = round(workers.gpus_per_predictor, 4) if accelerator == "GPU" else 1.0  # as Ray counts
    places = now.of(accelerator, share) if accelerator else now.nodes
    if not places and workers.predictors == "auto":
        raise ClusterError(
            f"The Ray cluster has no node with a {accelerator} yet; start one, or give workers.predictors a "
            "size for the nodes that it will have."
        )
    size = _size(workers.predictors, places)
    if accelerator == "TPU" and workers.predictors == "auto":  # Ray Data does not count them: nothing to scale by
        size = PoolConfig(min_size=size.max_size, max_size=size.max_size)
    if accelerator:
        return Pool(size, accelerator=accelerator, share=share)
    most = int(NODE_SHARE * now.smallest.memory) if size.max_size > places else 0
    return Pool(size, memory=float(max(PREDICTOR_BYTES, most)), share=0.0)


def _size(asked: PoolConfig | str, places: int) -> PoolConfig:
    """What was asked for, else one for each place, from the start."""
    if isinstance(asked, PoolConfig):
        return asked
    return PoolConfig(min_size=1, max_size=places, initial_size=places)


def _cut(pool: Pool, count: int) -> Pool:
    sizes = pool.size.model_dump().items()
    return replace(pool, size=PoolConfig(**{name: size and min(size, max(1, count)) for name, size in sizes}))


def stage(pool: Pool, run_id: str) -> dict[str, Any]:
    """How Ray Data runs a pool of a run: whole blocks in, whole blocks out, actors ready from the start."""
    size = pool.size
    return {
        "compute": ActorPoolStrategy(min_size=size.min_size, max_size=size.max_size, initial_size=pool.at_first),
        "num_cpus": pool.num_cpus,
        "num_gpus": pool.share if pool.accelerator == "GPU" else 0,
        "memory": pool.memory,
        **({"resources": {"TPU": 1}} if pool.accelerator == "TPU" else {}),
        **ray_internals.label_option(started.labels(run_id)),
    }


def pooled(rows: Dataset, actor: type, pool: Pool, *, run_id: str, **settings: Any) -> Dataset:
    """The rows as blocks that went through `actor(run_id=run_id, **settings)`, one of the pool's."""
    fed = ray_internals.map_whole_blocks(rows, actor, {"run_id": run_id, **settings}, **stage(pool, run_id))
    ray_internals.keep_actors(fed)
    return fed


def reading(files: int) -> dict[str, Any]:
    """How Ray Data runs the tasks that read the plan: beside the pools, whatever those have taken."""
    compute = TaskPoolStrategy(min(READERS, files))
    return {"compute": compute, "num_cpus": 0, "batch_size": None, "batch_format": "pyarrow"}


def in_blocks(dataset: Dataset, rows: int) -> Dataset:
    """In blocks of `rows`, cut by tasks that ask for no CPU."""
    cut = dataset.repartition(target_num_rows_per_block=rows)
    ray_internals.ask_for_no_cpu(cut)
    return cut


@contextmanager
def watched(
    pools: Pools, wait_s: float, changed: Callable[[], float], give_up: Callable[[], None]
) -> Iterator[None]:
    """Watch a run for actors that find no place.

    `changed` gives the time at which anything was last finished, on the clock of `time.monotonic`. If that is
    `wait_s` seconds ago and actors of the pools wait for a place, a thread calls `give_up`, and the context ends
    with ClusterError. Ray itself would wait for ever, also for the rows that such an actor was given.
    """
    began_s, ended = time.monotonic(), threading.Event()
    lacking: list[str] = []
    shapes = [pools.decoders.shape, pools.predictors.shape]

    def look() -> None:
        while not ended.wait(min(wait_s, LOOK_S)):
            if time.monotonic() > max(began_s, changed()) + wait_s and (said := _asked(shapes)):
                lacking.append(
                    f"Nothing was finished for {wait_s:g} s, and {said}. What was committed stays; add what "
                    "is missing, and run again."
                )
                return give_up()

    watch = threading.Thread(target=look, daemon=True, name="watch")
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()
        # A commit that is in doubt matters more: the run must not clear up what may land yet.
        if lacking and not isinstance(sys.exception(), TableError):
            raise ClusterError(lacking[0])


def _asked(shapes: list[dict[str, float]]) -> str | None:
    """`node_resources.waiting`; None, too, if the cluster's state cannot be had just now."""
    with suppress(Exception):
        return node_resources.waiting(shapes)
    return None
