"""The OpenVINO engine: the CPU's default. It runs a graph that `convert` made, and needs no torch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from pipeline.engines.base import Engine, Scored, top_k
from pipeline.errors import EngineError

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoEngine(Engine):
    """A converted graph on the CPU."""

    def __init__(self, graph: Path, *, precision: str, top_k: int, threads: int) -> None:
        """`graph` is the .xml of a model with input (B, H, W, 3) uint8. Raises: EngineError."""
        core = openvino.Core()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = _precision(precision, capabilities)
        # What an int8 graph leaves as it is, is computed in the best that the CPU has.
        rest = _precision("auto", capabilities) if precision == "int8" else self.precision
        self.device = f"cpu ({threads} threads)"
        self._top_k = top_k
        options = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[rest],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",  # one request at a time, on all the threads
        }
        self._compiled = core.compile_model(core.read_model(graph), "CPU", options)

    def start(self, pixels: NDArray[np.uint8]) -> Callable[[], Scored]:
        """See `Engine.start`."""
        found = self._compiled([pixels])
        indices, scores = top_k(found["logits"], self._top_k)
        scored = Scored(indices, scores, np.array(found["embedding"], dtype=np.float32))
        return lambda: scored


def _precision(asked: str, capabilities: list[str]) -> str:
    """`auto` is bf16 where the CPU computes in it, else fp32."""
    if asked == "fp16":
        raise EngineError("The openvino engine has no fp16 on the CPU; use precision bf16 or fp32.")
    if asked == "bf16" and "BF16" not in capabilities:
        raise EngineError("This CPU has no bf16; use precision fp32.")
    return ("bf16" if "BF16" in capabilities else "fp32") if asked == "auto" else asked
