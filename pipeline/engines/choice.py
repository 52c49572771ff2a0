"""Choose the engine of a run. This module knows the engines only by name."""

from typing import Literal

from pipeline.config import ModelConfig
from pipeline.errors import EngineError

ACCELERATORS: dict[str, Literal["GPU", "TPU"] | None] = {"torch": "GPU", "xla": "TPU", "openvino": None}
"""The accelerator that each engine uses where a node has one."""


def choose(config: ModelConfig, *, gpus: bool, tpus: bool = False) -> str:
    """Return the engine that the config names. `auto` is xla on TPUs, torch on GPUs, and OpenVINO otherwise.

    Only OpenVINO computes in int8. Raises: EngineError for options that exclude each other.
    """
    best = "xla" if tpus else "torch" if gpus else "openvino"
    best = "openvino" if config.precision == "int8" else best
    engine: str = best if config.engine == "auto" else config.engine
    if config.precision == "int8" and engine != "openvino":
        raise EngineError(
            f"model.precision int8 needs model.engine openvino, but this run uses {engine}; change one of them."
        )
    if config.compile and engine != "torch":
        raise EngineError(
            f"model.compile needs model.engine torch, but this run uses {engine}; set model.compile to false."
        )
    return engine
