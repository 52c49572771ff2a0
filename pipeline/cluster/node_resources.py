"""What the nodes of a Ray cluster have, and which actors wait for a place. It does not know what those are for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import ray

from pipeline.cluster import ray_internals

Accelerator = Literal["GPU", "TPU"]
SHOWN = 5
"""Nodes that a sentence names."""


@dataclass(frozen=True)
class Node:
    """What one node has: CPUs, GPUs, TPU chips, bytes of memory that Ray gives away."""

    cpus: float = 0.0
    gpus: float = 0.0
    tpus: float = 0.0
    memory: float = 0.0

    def of(self, accelerator: Accelerator | None) -> float:
        """How many GPUs, or TPU chips."""
        return {"GPU": self.gpus, "TPU": self.tpus}.get(accelerator or "", 0.0)


@dataclass(frozen=True)
class Resources:
    """The nodes of a cluster."""

    every: tuple[Node, ...] = ()

    @property
    def cpus(self) -> float:
        """CPUs of all nodes."""
        return sum(node.cpus for node in self.every)

    @property
    def nodes(self) -> int:
        """Nodes that have CPUs."""
        return len(self._able)

    @property
    def smallest(self) -> Node:
        """The least CPUs, and the least memory, of nodes that have CPUs."""
        return Node(
            cpus=min((node.cpus for node in self._able), default=1.0),
            memory=min((node.memory for node in self._able), default=0.0),
        )

    @property
    def _able(self) -> list[Node]:
        return [node for node in self.every if node.cpus > 0]

    def places(self, cpus: float) -> int:
        """How many actors that take so many CPUs each have a place."""
        return sum(int(node.cpus / cpus + 1e-6) for node in self.every)

    def of(self, accelerator: Accelerator | None, share: float = 1.0) -> int:
        """How many actors that take this share of an accelerator each have a place."""
        return sum(int(node.of(accelerator) / share + 1e-6) for node in self.every)


def alive() -> Resources:
    """The nodes that are alive."""
    names = ("CPU", "GPU", "TPU", "memory")
    found = ray_internals.live_nodes()
    return Resources(tuple(Node(*(float(has.get(name, 0)) for name in names)) for has in found))


def waiting(shapes: Iterable[dict[str, float]]) -> str | None:
    """What actors of these shapes wait for a place, and what the nodes have free; None if none do.

    A shape is what an actor asks for, by Ray's names: CPU, GPU, TPU, memory. Raises: what Ray raises if the state
    of the cluster cannot be had.
    """
    status = ray_internals.cluster_status(ray.get_runtime_context().gcs_address)
    asked = [_rounded(shape) for shape in shapes]
    unplaced = [
        f"{demand.count} for {_listed(demand.shape)}"
        for demand in status.unplaced
        if _rounded(demand.shape) in asked
    ]
    if not unplaced:
        return None
    free = [f"{node.host} has free {_listed(node.amounts) or 'nothing'}" for node in status.free[:SHOWN]]
    more = [f"and {len(status.free) - SHOWN} more nodes"] if len(status.free) > SHOWN else []
    return f"workers wait for a place, {' and '.join(unplaced)}: {', '.join(free + more)}"


def _rounded(shape: Mapping[str, float]) -> dict[str, float]:
    return {name: round(amount, 4) for name, amount in shape.items() if amount}


def _listed(amounts: Mapping[str, float]) -> str:
    """As "3.5 CPU, 1 GPU"; resources that only Ray uses are left out."""
    shown = {name: amounts[name] for name in ("CPU", "GPU", "TPU") if name in amounts}
    memory = amounts.get("memory", 0.0)
    return ", ".join(
        [f"{amount:g} {name}" for name, amount in shown.items()] + [f"{memory / 1e9:.2g} GB"] * (memory > 0)
    )
