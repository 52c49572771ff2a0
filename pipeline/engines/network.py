"""A Hugging Face image encoder as one torch module: uint8 pixels -> logits and embedding.

One forward pass gives both. This module does not know the device or the engine that computes it.
"""

from typing import Any

import torch
from torch import nn

from pipeline.engines.pretrained import load_pretrained, patch_count, pool
from pipeline.models.model import Model


class LastLayer(nn.Module):  # type: ignore[misc]
    """A transformer's last layer, computed only for its first tokens. They attend to all tokens.

    Nothing reads the other tokens. This saves a ViT-B/16 at 224x224 6.9 % of its operations: 12.2 instead of 11.4
    images/s (OpenVINO, bf16, 2 cores).
    """

    def __init__(self, layer: Any, tokens: int) -> None:
        super().__init__()
        self.layer, self.tokens = layer, tokens

    def forward(self, hidden: torch.Tensor, *_masks: Any, **_options: Any) -> torch.Tensor:
        """(B, T, D) -> (B, tokens, D)."""
        layer, attention = self.layer, self.layer.attention
        normed, first = layer.layernorm_before(hidden), hidden[:, : self.tokens]

        def heads(projected: torch.Tensor) -> torch.Tensor:
            return projected.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

        query = heads(attention.q_proj(normed[:, : self.tokens]))
        key, value = heads(attention.k_proj(normed)), heads(attention.v_proj(normed))
        attended = nn.functional.scaled_dot_product_attention(query, key, value, scale=attention.scaling)
        first = first + attention.o_proj(attended.transpose(1, 2).flatten(2))
        return first + layer.mlp(layer.layernorm_after(first))


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
        if self.pooling == "cls" and model.family.head_tokens is not None:
            layers = self.model.base_model.layers
            layers[-1] = LastLayer(layers[-1], model.family.head_tokens)
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
