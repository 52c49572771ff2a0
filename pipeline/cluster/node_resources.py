"""What the nodes of a Ray cluster have, and which actors Ray cannot place. It does not know what they are for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import ray

from pipeline.cluster import ray_internals

Accelerator = Literal["GPU", "TPU"]
NAMED_NODES = 5
"""Nodes that a message names."""


@dataclass(frozen=True)
class Node:
    """What one node offers: CPUs, GPUs, TPU chips, and memory in bytes."""

    cpus: float = 0.0
    gpus: float = 0.0
    tpus: float = 0.0
    memory: float = 0.0

    def accelerators(self, accelerator: Accelerator | None) -> float:
        """Return the number of GPUs, or of TPU chips."""
        return {"GPU": self.gpus, "TPU": self.tpus}.get(accelerator or "", 0.0)


@dataclass(frozen=True)
class Resources:
    """What the nodes of a cluster offer."""

    nodes: tuple[Node, ...] = ()

    @property
    def cpus(self) -> float:
        """CPUs of all nodes."""
        return sum(node.cpus for node in self.nodes)

    @property
    def cpu_nodes(self) -> int:
        """Number of nodes that have CPUs."""
        return len(self._with_cpus)

    @property
    def smallest(self) -> Node:
        """The least CPUs, and the least memory, of the nodes that have CPUs."""
        return Node(
            cpus=min((node.cpus for node in self._with_cpus), default=1.0),
            memory=min((node.memory for node in self._with_cpus), default=0.0),
        )

    @property
    def _with_cpus(self) -> list[Node]:
        return [node for node in self.nodes if node.cpus > 0]

    def cpu_slots(self, cpus: float) -> int:
        """Return how many actors fit that take `cpus` CPUs each."""
        return sum(int(node.cpus / cpus + 1e-6) for node in self.nodes)

    def accelerator_slots(self, accelerator: Accelerator | None, share: float = 1.0) -> int:
        """Return how many actors fit that take this share of an accelerator each."""
        return sum(int(node.accelerators(accelerator) / share + 1e-6) for node in self.nodes)


def live() -> Resources:
    """Return what the live nodes offer."""
    names = ("CPU", "GPU", "TPU", "memory")
    found = ray_internals.live_nodes()
    return Resources(tuple(Node(*(float(has.get(name, 0)) for name in names)) for has in found))


def unplaced(shapes: Iterable[dict[str, float]]) -> str | None:
    """Describe the actors of these shapes that Ray cannot place, and what the nodes have free; None without such.

    A shape is what an actor asks for, by Ray's names: CPU, GPU, TPU, memory. Raises: what Ray raises if the
    cluster does not tell its state.
    """
    status = ray_internals.cluster_status(ray.get_runtime_context().gcs_address)
    asked = [_rounded(shape) for shape in shapes]
    waiting = [
        f"{demand.count} worker{'s' * (demand.count > 1)} with {_listed(demand.shape)}"
        for demand in status.unplaced
        if _rounded(demand.shape) in asked
    ]
    if not waiting:
        return None
    free = [f"{_listed(node.amounts) or 'nothing'} on {node.host}" for node in status.free[:NAMED_NODES]]
    more = [f"and {len(status.free) - NAMED_NODES} more nodes"] if len(status.free) > NAMED_NODES else []
    return f"Ray cannot place {' and '.join(waiting)}. Free: {'; '.join(free + more)}"


def _rounded(shape: Mapping[str, float]) -> dict[str, float]:
    return {name: round(amount, 4) for name, amount in shape.items() if amount}


def _listed(amounts: Mapping[str, float]) -> str:
    """Format as "3.5 CPU, 1 GPU", without resources that only Ray uses."""
    known = {name: amounts[name] for name in ("CPU", "GPU", "TPU") if name in amounts}
    memory = amounts.get("memory", 0.0)
    return ", ".join(
        [f"{amount:g} {name}" for name, amount in known.items()] + [f"{memory / 1e9:.2g} GB"] * (memory > 0)
    )
