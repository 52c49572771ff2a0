"""Convert a model to an OpenVINO graph, once for each model. Only this part of OpenVINO's use needs torch."""

import warnings
from pathlib import Path

import openvino
import torch

from pipeline.engines.network import Embedder, Network
from pipeline.models.model import Model
from pipeline.storage.caches import atomic_folder


def convert(model: Model, pooling: str, target: Path) -> None:
    """Write `target`/graph.xml and graph.bin with float32 weights. Other processes see both files or none.

    Raises: ModelError.
    """
    steps = model.preprocessing
    example = torch.zeros((2, steps.height, steps.width, 3), dtype=torch.uint8)
    shape = openvino.PartialShape([-1, steps.height, steps.width, 3])
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter(
            "ignore"
        )  # tracing warns about each size check that it freezes; sizes are fixed here
        network = Network(model, pooling)
        network = network if network.has_head else Embedder(network)
        graph = openvino.convert_model(network, example_input=example, input=[(shape, openvino.Type.u8)])
    names = ("logits", "embedding") if model.labels else ("embedding",)
    for output, name in zip(graph.outputs, names, strict=True):
        output.get_tensor().set_names({name})
    with atomic_folder(target) as scratch:
        openvino.save_model(graph, scratch / "graph.xml", compress_to_fp16=False)
