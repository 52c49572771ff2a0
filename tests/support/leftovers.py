"""What is left on this process's Ray cluster: nothing of a test may be."""

import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import ray

PATIENCE_S = 10.0
"""How long a process may take to be gone, on a busy machine."""
OF_RAY = ("IDLE", "DashboardAgent", "RuntimeEnvAgent", "_StatsActor", "_AutoscalingCoordinatorActor")
OF_RAY += ("ActorLocationTracker", "SpillWorker", "RestoreWorker")
"""Processes that Ray and Ray Data have for as long as a cluster lives, by their titles."""
COUNTED = ("CPU", "GPU", "TPU", "memory")


def found(patience_s: float = PATIENCE_S) -> list[str]:
    """Tasks, actors and decoding processes that are still there, and resources that are still taken."""
    deadline = time.monotonic() + patience_s
    while (left := [*map(_named, _processes()), *_taken()]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def killed() -> list[str]:
    """The same; what works is killed, so that the next test has the cluster for itself."""
    left = found()
    for process in _processes() if left else ():
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return left


def _processes() -> Iterator[psutil.Process]:
    """Below the cluster's raylet: workers that work, and orphaned decoders."""
    (raylet,) = (child for child in psutil.Process().children() if child.name() == "raylet")
    for process in raylet.children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if _title(process).startswith("ray::") and not any(name in _title(process) for name in OF_RAY):
                yield process
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if process.ppid() == 1 and "pipeline.images.sandbox_child" in " ".join(process.cmdline()):
                yield process


def _title(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


def _named(process: psutil.Process) -> str:
    try:
        return _title(process)
    except psutil.NoSuchProcess:
        return "a process that has just ended"


def _taken() -> list[str]:
    """As "1 CPU"; not what actors of Ray Data's own ask for."""
    free, whole = ray.available_resources(), ray.cluster_resources()
    taken = {name: whole.get(name, 0.0) - free.get(name, 0.0) for name in COUNTED}
    return [f"{amount:g} {name}" for name, amount in taken.items() if amount > 0]
