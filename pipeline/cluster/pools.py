"""The pools of actors: their sizes, what each actor asks Ray for, how Ray Data runs them.

This module does not know what the actors do.
"""

from dataclasses import dataclass, replace
from typing import Any

from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy

from pipeline.cluster import ray_internals, run_work
from pipeline.cluster.node_resources import Accelerator, Resources
from pipeline.config import PoolConfig, WorkersConfig
from pipeline.errors import ClusterError

READERS = 2
"""Concurrent tasks that read the plan. Each gives rows a hundred times faster than they are decoded."""
PREDICTOR_BYTES = 50e6
"""Memory that a CPU predictor asks Ray for, so that Ray spreads predictors evenly over the nodes."""
NODE_SHARE = 0.51
"""Share of a node's memory that a CPU predictor asks for where the pool may grow: one fits on each node."""
DECODERS = 2
"""The least number of decoders: while a file hangs one until the time limit, the others go on."""
CALLS = 2
"""Blocks in an actor with an accelerator. All of them are lost if it dies."""


@dataclass(frozen=True)
class Pool:
    """The actors of one stage: their number, and what each asks Ray for.

    `share` is a part of a GPU, or a TPU chip, and 0 for a predictor on CPUs; `memory` is in bytes.
    """

    size: PoolConfig
    num_cpus: float = 0.0
    accelerator: Accelerator | None = None
    share: float = 1.0
    memory: float = 0.0

    @property
    def initial_size(self) -> int:
        """Number of actors that the pool starts with."""
        return self.size.initial_size or self.size.min_size

    @property
    def calls(self) -> int:
        """Blocks that an actor works on at once: an accelerator has one while the rows of the last are made."""
        return CALLS if self.accelerator else 1

    @property
    def shape(self) -> dict[str, float]:
        """What one actor asks for, by Ray's names and in Ray's units: CPUs, GPUs, chips, bytes."""
        asked = {"CPU": self.num_cpus, "memory": self.memory, (self.accelerator or "GPU"): 0.0}
        return asked | ({self.accelerator: self.share} if self.accelerator else {})


@dataclass(frozen=True)
class Pools:
    """The pools of both stages, and the number of CPU threads of one predictor."""

    decoders: Pool
    predictors: Pool
    predictor_threads: int

    def limited_to(self, blocks: int) -> "Pools":
        """Drop actors that would get no block: each takes seconds of a core to start."""
        return replace(
            self, decoders=_limited(self.decoders, blocks), predictors=_limited(self.predictors, blocks)
        )


def uses(workers: WorkersConfig, now: Resources, kind: Accelerator) -> bool:
    """Tell whether predictors may use accelerators of this kind: as the config says, or as the nodes have now."""
    return workers.device == kind.lower() or (workers.device == "auto" and now.accelerator_slots(kind) > 0)


def plan_pools(workers: WorkersConfig, now: Resources, accelerator: Accelerator | None = "GPU") -> Pools:
    """Choose the pools of the stages, from the config or from what the nodes have now.

    `accelerator` is the kind that the run's engine can use. There is one predictor for each of them, or for each
    share of one; without any, one for each node. There is one decoder for each CPU.

    Only decoders ask for CPUs, so no stage takes what another one needs to start, wherever Ray places them. On
    CPUs decoding is a few per cent of the work. Sharing the cores by the operating system loses less than
    splitting them. Raises: ClusterError if there is no CPU, or nothing that `auto` can count.
    """
    used = accelerator if accelerator and uses(workers, now, accelerator) else None
    if workers.device in ("gpu", "tpu") and not used:
        raise ClusterError(
            f"workers.device is {workers.device}, but the engine of this run does not use one. Choose another "
            "model.engine or workers.device."
        )
    if not now.cpu_nodes and ("auto" in (workers.decoders, workers.predictors) or not used):
        raise ClusterError(
            "The Ray cluster has no node with a CPU yet. Start one, or set workers.device, workers.decoders and "
            "workers.predictors for the nodes that it will have."
        )
    threads = max(1, int(now.smallest.cpus))
    return Pools(_decoders(workers, now), _predictors(workers, now, used), threads)


def _decoders(workers: WorkersConfig, now: Resources) -> Pool:
    """Give each decoder a CPU, or a part of one where a pool of fixed size would not fit otherwise."""
    size = _size(workers.decoders, max(DECODERS, int(now.cpus)))
    if workers.decoders != "auto" and size.min_size < size.max_size:
        return Pool(size, 1.0)
    parts = (part / 100 for part in range(100, 0, -1))
    return Pool(size, next((part for part in parts if now.cpu_slots(part) >= size.max_size), 0.01))


def _predictors(workers: WorkersConfig, now: Resources, accelerator: Accelerator | None) -> Pool:
    share = round(workers.gpus_per_predictor, 4) if accelerator == "GPU" else 1.0  # as Ray counts
    slots = now.accelerator_slots(accelerator, share) if accelerator else now.cpu_nodes
    if not slots and workers.predictors == "auto":
        raise ClusterError(
            f"The Ray cluster has no node with a {accelerator} yet. Start one, or set workers.predictors for the "
            "nodes that it will have."
        )
    size = _size(workers.predictors, slots)
    if accelerator == "TPU" and workers.predictors == "auto":  # Ray Data cannot scale by chips
        size = PoolConfig(min_size=size.max_size, max_size=size.max_size)
    if accelerator:
        return Pool(size, accelerator=accelerator, share=share)
    most = int(NODE_SHARE * now.smallest.memory) if size.max_size > slots else 0
    return Pool(size, memory=float(max(PREDICTOR_BYTES, most)), share=0.0)


def _size(asked: PoolConfig | str, slots: int) -> PoolConfig:
    """Return the configured size, or one actor for each slot from the start."""
    if isinstance(asked, PoolConfig):
        return asked
    return PoolConfig(min_size=1, max_size=slots, initial_size=slots)


def _limited(pool: Pool, most: int) -> Pool:
    sizes = pool.size.model_dump().items()
    return replace(pool, size=PoolConfig(**{name: size and min(size, max(1, most)) for name, size in sizes}))


def actor_options(pool: Pool, run_id: str) -> dict[str, Any]:
    """Return the options of `map_batches` for a pool."""
    size = pool.size
    options = {
        "compute": ActorPoolStrategy(
            min_size=size.min_size,
            max_size=size.max_size,
            initial_size=pool.initial_size,
            max_concurrent_calls_per_actor=pool.calls,
            enable_true_multi_threading=pool.calls > 1,
        ),
        "num_cpus": pool.num_cpus,
        "num_gpus": pool.share if pool.accelerator == "GPU" else 0,
        "memory": pool.memory,
    }
    if pool.accelerator == "TPU":
        options["resources"] = {"TPU": 1}
    return options | ray_internals.label_option(run_work.labels(run_id))


def map_actors(rows: Dataset, actor: type, pool: Pool, *, run_id: str, **settings: Any) -> Dataset:
    """Send each block through one of the pool's actors, `actor(run_id=run_id, **settings)`.

    A block comes out as one block. The actors start together, and stay until no more blocks can come.
    """
    arguments = {"run_id": run_id, **settings}
    mapped = ray_internals.map_whole_blocks(rows, actor, arguments, **actor_options(pool, run_id))
    ray_internals.keep_actors(mapped)
    return mapped


def reader_options(files: int) -> dict[str, Any]:
    """Return the options of `map_batches` for the tasks that read the plan. They need no free CPU."""
    compute = TaskPoolStrategy(min(READERS, files))
    return {"compute": compute, "num_cpus": 0, "batch_size": None, "batch_format": "pyarrow"}


def cut_blocks(dataset: Dataset, rows: int) -> Dataset:
    """Cut a dataset into blocks of `rows`. The tasks for this need no free CPU."""
    cut = dataset.repartition(target_num_rows_per_block=rows)
    ray_internals.ask_for_no_cpu(cut)
    return cut
