"""Pixels -> labels and embeddings on one kind of device.

`load` imports only the engine that is asked for, when it is asked for: torch costs seconds to import,
and an engine that is not installed must not be missed by those who use another.
"""

import hashlib
import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.config import EmbeddingConfig, ModelConfig
from pipeline.engines.base import Engine, Scored
from pipeline.errors import EngineError
from pipeline.models.model import Model
from pipeline.storage.caches import cache_folder

__all__ = ["Engine", "Scored", "choose", "load", "load_reference", "write_int8"]


GRAPH = "2"
"""The version of what `network` and `convert` make of a model."""


ACCELERATORS: dict[str, Literal["GPU", "TPU"] | None] = {"torch": "GPU", "xla": "TPU", "openvino": None}
"""What each engine uses where there is one."""


def choose(config: ModelConfig, *, gpus: bool, tpus: bool = False) -> str:
    """The engine that `auto` means: xla where there are TPUs, torch where there are GPUs, else OpenVINO, which
    alone has int8.

    Raises: EngineError for a choice that another one rules out.
    """
    best = "xla" if tpus else "torch" if gpus else "openvino"
    best = "openvino" if config.precision == "int8" else best
    engine: str = best if config.engine == "auto" else config.engine
    if config.precision == "int8" and engine != "openvino":
        raise EngineError(f"Precision int8 is for the engine openvino, and this run uses {engine}.")
    if config.compile and engine != "torch":
        raise EngineError(f"model.compile is for the engine torch, and this run uses {engine}.")
    return engine


def load(
    model: Model,
    config: ModelConfig,
    embedding: EmbeddingConfig,
    *,
    engine: str,
    top_k: int,
    threads: int,
    share: float = 1.0,
    graph: Path | None = None,
) -> Engine:
    """The model on this process's device, ready to predict; k is at most the model's number of labels.

    `share` is the part of an accelerator that it may use if there is one: 0 keeps it to the CPU. `graph` is the
    quantised one, with precision int8. Raises: EngineError if the engine is not installed or lacks
    the precision, ModelError.
    """
    module = _import(engine)
    k = min(top_k, len(model.labels))
    if engine == "openvino":
        graph = graph or _converted(model, embedding.pooling)
        return cast(Engine, module.OpenVinoEngine(graph, precision=config.precision, top_k=k, threads=threads))
    options: dict[str, Any] = {"precision": config.precision, "pooling": embedding.pooling, "top_k": k}
    if engine == "xla":
        return cast(Engine, module.XlaEngine(model, **options, share=share))
    options |= {"threads": threads, "compiled": config.compile}
    return cast(Engine, module.TorchEngine(model, **options, share=share))


def load_reference(model: Model, embedding: EmbeddingConfig, top_k: int) -> Engine:
    """Plain transformers in float32, against which the engines are judged. Raises: ModelError."""
    module = _import("reference")
    return cast(Engine, module.ReferenceEngine(model, pooling=embedding.pooling, top_k=top_k))


def write_int8(model: Model, pooling: str, images: NDArray[np.uint8], target: Path) -> None:
    """Write the int8 graph to `target`/graph.xml and .bin. Raises: EngineError without nncf, ModelError."""
    _import("quantize").quantize(_converted(model, pooling), images, target)


def _converted(model: Model, pooling: str) -> Path:
    """The OpenVINO graph of a model: from the cache, or made now."""
    decisive = [GRAPH, model.weights_sha256, model.architecture_sha256, str(model.preprocessing), pooling]
    versions = [__version__, version("openvino"), version("transformers")]
    key = hashlib.sha256("\n".join(decisive + versions).encode()).hexdigest()[:16]
    target = cache_folder() / "openvino" / key
    if not target.exists():
        _import("convert").convert(model, pooling, target)
    return target / "graph.xml"


_EXTRAS = {"xla": "'lakelens[tpu]'", "quantize": "'lakelens[int8]'"}


def _import(engine: str) -> Any:
    try:
        return importlib.import_module(f"pipeline.engines.{engine}")
    except ModuleNotFoundError as error:
        raise EngineError(
            f"The engine {engine} needs the package {error.name}, which is not installed; "
            f"install it with `pip install {_EXTRAS.get(engine, error.name)}`."
        ) from error
