"""A Hugging Face image encoder as one torch module: uint8 pixels -> logits and embedding.

One forward pass gives both. This module does not know the device or the engine that computes it.
"""

from typing import Any

import torch
from torch import nn

from pipeline.engines.pretrained import load_pretrained, patch_count, pool
from pipeline.models.families import Layers
from pipeline.models.model import Model


class FirstTokens(nn.Module):  # type: ignore[misc]
    """A module that computes each token by itself, computed for the first ones only. The others become zero."""

    def __init__(self, module: Any, tokens: int) -> None:
        super().__init__()
        self.module, self.tokens = module, tokens

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, T, E)."""
        found = self.module(hidden[:, : self.tokens])
        return nn.functional.pad(found, (0, 0, 0, hidden.shape[1] - self.tokens))


def leave_out_unread_tokens(encoder: Any, layers: Layers, tokens: int) -> None:
    """Compute only the first tokens in the encoder's last layer. They attend to all, and nothing reads the others.

    This saves 70 % of the layer's time, 6 % of a model with twelve layers (base size, 224x224, OpenVINO, bf16).
    """
    last = encoder.get_submodule(layers.path)[-1]
    for name in layers.token_wise:
        last.set_submodule(name, FirstTokens(last.get_submodule(name), tokens))


class Network(nn.Module):  # type: ignore[misc]
    """Normalises pixels on the device, runs the model once, and makes its embedding."""

    def __init__(self, model: Model, pooling: str) -> None:
        """Load the weights in float32; `pooling` is one of the model's family, or auto.

        Raises: ModelError if the weights do not fit the model's own config, or the family has no such pooling.
        """
        super().__init__()
        self.pooling, self.pooled_output = model.pooling(pooling), model.family.pooled_output
        self.model, self.has_head = load_pretrained(model), bool(model.labels)
        self.patches = patch_count(self.model, model) if self.pooling == "mean" else 0
        layers, tokens = model.family.layers, model.family.tokens_read(self.pooling, head=self.has_head)
        if layers and tokens:
            leave_out_unread_tokens(self.model.base_model, layers, tokens)
        self.register_buffer("scale", torch.tensor(model.preprocessing.scale).view(1, 3, 1, 1))
        self.register_buffer("bias", torch.tensor(model.preprocessing.bias).view(1, 3, 1, 1))
        self._outputs: dict[str, Any] = {}
        if self.has_head:
            self.model.base_model.register_forward_hook(self._keep_output)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map `pixels` uint8 (B, H, W, 3) to logits (B, C) and embedding (B, D), in the weights' dtype.

        A model without a head has no classes: C is 0.
        """
        values = pixels.permute(0, 3, 1, 2).float() * self.scale + self.bias
        weights = next(self.model.parameters())
        found = self.model(pixel_values=values.to(weights.dtype))
        output = self._outputs.pop("last") if self.has_head else found
        embedding = pool(output, self.pooling, self.patches, self.pooled_output)
        return (found.logits if self.has_head else embedding[:, :0]), embedding

    def _keep_output(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self._outputs["last"] = output


class Embedder(nn.Module):  # type: ignore[misc]
    """The embedding of a network alone: OpenVINO has no outputs of zero classes."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map `pixels` uint8 (B, H, W, 3) to the embedding (B, D)."""
        return self.network(pixels)[1]
