"""The OpenVINO engine, the default on CPUs. It runs a graph that `convert` has made, and needs no torch."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from pipeline.engines.base import Engine, Scored, top_k
from pipeline.errors import EngineError

STREAMS = 4
"""Most batches at once, each on its share of the threads. A ViT-B/16 on two cores gives 12.5 images/s with two
streams, and 12.2 with one stream on both cores (bf16, batches of 8). More than two have not been measured."""
PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoEngine(Engine):
    """A converted graph on the CPU."""

    def __init__(self, graph: Path, *, precision: str, top_k: int, threads: int) -> None:
        """Compile `graph`, the .xml file of a model with input uint8 (B, H, W, 3).

        Raises: EngineError if the CPU does not have the precision.
        """
        core = openvino.Core()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = _precision(precision, capabilities)
        # An int8 graph leaves some operations as they are: they use the CPU's best precision.
        rest = _precision("auto", capabilities) if precision == "int8" else self.precision
        self.device, self.in_flight = f"cpu ({threads} threads)", min(threads, STREAMS)
        self._top_k, self._has_head = top_k, top_k > 0
        options = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[rest],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": self.in_flight,
        }
        compiled = core.compile_model(core.read_model(graph), "CPU", options)
        self._requests = deque(compiled.create_infer_request() for _ in range(self.in_flight))

    def start(self, pixels: NDArray[np.uint8]) -> Callable[[], Scored]:
        """See `Engine.start`."""
        request = self._requests[0]
        self._requests.rotate(-1)
        request.wait()  # it may still compute a batch that was given up
        request.start_async([pixels])

        def wait() -> Scored:
            request.wait()
            vectors = np.array(request.get_tensor("embedding").data, dtype=np.float32)
            logits = request.get_tensor("logits").data if self._has_head else vectors[:, :0]
            return Scored(*top_k(logits, self._top_k), vectors)

        return wait


def _precision(asked: str, capabilities: list[str]) -> str:
    """Resolve `auto`: bf16 if the CPU computes in it, otherwise fp32. Raises: EngineError."""
    if asked == "fp16":
        raise EngineError("The engine openvino has no fp16 on CPUs; set model.precision to bf16 or fp32.")
    if asked == "bf16" and "BF16" not in capabilities:
        raise EngineError("This CPU has no bf16; set model.precision to fp32.")
    return ("bf16" if "BF16" in capabilities else "fp32") if asked == "auto" else asked
