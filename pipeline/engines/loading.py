"""Load a model onto this process's device. Each engine is imported only when it is asked for."""

import hashlib
import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.config import EmbeddingConfig, ModelConfig
from pipeline.engines.base import Engine
from pipeline.errors import EngineError
from pipeline.models.model import Model
from pipeline.storage.caches import cache_folder

GRAPH_VERSION = "3"
"""Part of the key of cached OpenVINO graphs. Change it whenever `network` or `convert` make another graph."""
EXTRAS = {"xla": "'lakelens[tpu]'", "quantize": "'lakelens[int8]'"}
"""What to install for a module whose packages are not part of the core."""


def load_engine(
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
    """Load the model into an engine; k is at most the model's number of labels.

    `share` is the part of an accelerator that the engine may use if there is one: 0 keeps it to the CPU. `graph`
    is the quantised graph, for precision int8. Raises: EngineError if the engine is not installed or lacks the
    precision, ModelError if the weights cannot be loaded.
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
    """Load plain transformers in float32, to compare other engines with. Raises: ModelError."""
    module = _import("reference")
    return cast(Engine, module.ReferenceEngine(model, pooling=embedding.pooling, top_k=top_k))


def load_text_encoder(model: Model) -> Any:
    """Load the model's text encoder and its tokenizer, a `text.TextEncoder`. Raises: ModelError if it has none."""
    return _import("text").TextEncoder(model)


def write_int8(model: Model, pooling: str, images: NDArray[np.uint8], target: Path) -> None:
    """Write the int8 graph to `target`/graph.xml and graph.bin, calibrated on `images` uint8 (B, H, W, 3).

    Raises: EngineError if nncf is not installed, ModelError.
    """
    _import("quantize").quantize(_converted(model, pooling), images, target)


def _converted(model: Model, pooling: str) -> Path:
    """Return the path of a model's OpenVINO graph, from the cache or converted now."""
    pooling = model.pooling(pooling)  # `auto` and what it stands for are one graph
    decisive = [
        GRAPH_VERSION,
        model.weights_sha256,
        model.architecture_sha256,
        str(model.preprocessing),
        pooling,
        __version__,
        version("openvino"),
        version("transformers"),
    ]
    key = hashlib.sha256("\n".join(decisive).encode()).hexdigest()[:16]
    target = cache_folder() / "openvino" / key
    if not target.exists():
        _import("convert").convert(model, pooling, target)
    return target / "graph.xml"


def _import(module: str) -> Any:
    """Import a module of this room. Raises: EngineError if a package that it needs is not installed."""
    try:
        return importlib.import_module(f"pipeline.engines.{module}")
    except ModuleNotFoundError as error:
        raise EngineError(
            f"The engine {module} needs the package {error.name}, which is not installed; "
            f"install it with `pip install {EXTRAS.get(module, error.name)}`."
        ) from error
