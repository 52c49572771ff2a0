"""The pools of actors: how many, what each asks Ray for, how Ray Data runs them. It does not know what they do."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy

from pipeline import nodes
from pipeline.config import PoolConfig, WorkersConfig
from pipeline.errors import ClusterError
from pipeline.nodes import Accelerator, Resources

READERS = 2
"""Tasks that read the plan at once: each gives rows a hundred times faster than they are decoded."""
PREDICTOR_BYTES = 50e6
"""Memory that a CPU predictor asks Ray for: a token, for which Ray spreads them evenly over the nodes."""
NODE_SHARE = 0.51
"""Share of a node's memory that a CPU predictor asks for where nodes may be added, so that each gets its own."""
DECODERS = 2
"""At least so many: while a file that hangs its decoder runs into the time limit, the others go on."""
LOOK_S = 5.0
"""How often it is looked whether anything was finished."""


@dataclass(frozen=True)
class Pool:
    """Actors of one stage: how many, and what each asks Ray for: `share` of a GPU, or a TPU chip."""

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
        """What one actor asks for, by Ray's names."""
        asked = {"CPU": self.num_cpus, "memory": self.memory, (self.accelerator or "GPU"): 0.0}
        return asked | ({self.accelerator: self.share} if self.accelerator else {})


@dataclass(frozen=True)
class Pools:
    """The pools of both stages, and the CPU threads that one predictor computes with."""

    decoders: Pool
    predictors: Pool
    predictor_threads: int


def sized(
    workers: WorkersConfig,
    now: Resources,
    accelerator: Accelerator | None = "GPU",
    most: Resources | None = None,
) -> Pools:
    """Pools for the stages, from the config or from what the nodes have `now`, and may have at `most`.

    One predictor for each of the engine's accelerators, or share of one, else for each node; a decoder for each
    CPU. Only decoders ask for CPUs, so that no stage takes what another one needs to start, wherever Ray places
    them. On CPUs decoding is a few per cent of the work: that the operating system shares the cores loses less
    than splitting them. Raises: ClusterError if there is no CPU at all, and none to come.
    """
    most = most or now
    if not most.nodes:
        raise ClusterError("The Ray cluster has no node with a CPU yet; start one, and run again.")
    predictors = _predictors(workers, now, accelerator, most)
    size = _size(workers.decoders, int(now.cpus), max(DECODERS, int(most.cpus)))
    # Ray counts in hundredths of a CPU.
    num_cpus = min(1.0, math.floor(100 * most.cpus / size.max_size) / 100)
    threads = (now if now.nodes else most).smallest.cpus
    return Pools(Pool(size, num_cpus), predictors, max(1, int(threads)))


def _predictors(workers: WorkersConfig, now: Resources, accelerator: Accelerator | None, most: Resources) -> Pool:
    share = workers.gpus_per_predictor if accelerator == "GPU" else 1.0
    places = most.of(accelerator, share)
    if not places:
        memory = NODE_SHARE * most.smallest.memory if most != now else 0.0
        return Pool(_size(workers.predictors, now.nodes, most.nodes), memory=memory or PREDICTOR_BYTES)
    size = _size(workers.predictors, now.of(accelerator, share), places)
    if accelerator == "TPU" and workers.predictors == "auto":  # Ray Data does not count them: nothing to scale by
        size = PoolConfig(min_size=size.max_size, max_size=size.max_size)
    return Pool(size, accelerator=accelerator, share=share)


def _size(asked: PoolConfig | str, now: int, most: int) -> PoolConfig:
    """What was asked for, else all that there is place for, and as many more as nodes are added for."""
    if isinstance(asked, PoolConfig):
        return asked
    return PoolConfig(min_size=1, max_size=most, initial_size=min(max(1, now), most))


_WHOLE_BLOCKS = {"batch_size": None, "batch_format": "pyarrow"}


def stage(pool: Pool) -> dict[str, Any]:
    """How Ray Data runs a pool: whole blocks in, whole blocks out, actors ready from the start."""
    size = pool.size
    return {
        "compute": ActorPoolStrategy(min_size=size.min_size, max_size=size.max_size, initial_size=pool.at_first),
        "num_cpus": pool.num_cpus,
        "num_gpus": pool.share if pool.accelerator == "GPU" else 0,
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
    """Gives what is to be called whenever something was finished. If nothing was for `wait_s`, and actors of the
    pools wait for a place, it calls `give_up` from another thread, and in the end raises ClusterError.

    An actor that finds no place waits for one, and Ray waits for what it was given, for ever.
    """
    moved_s, ended = time.monotonic(), threading.Event()
    lacking: list[str] = []
    shapes = [pools.decoders.shape, pools.predictors.shape]

    def moved() -> None:
        nonlocal moved_s
        moved_s = time.monotonic()

    def look() -> None:
        while not ended.wait(min(wait_s, LOOK_S)):
            if time.monotonic() > moved_s + wait_s and (said := nodes.waiting(shapes)):
                lacking.append(
                    f"Nothing was finished for {wait_s:g} s, and {said}. What was committed stays; add what "
                    "is missing, and run again."
                )
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
