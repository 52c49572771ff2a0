"""A Hugging Face image classifier as one torch module: uint8 pixels -> logits and embedding.

One forward pass gives both. It does not know on what device, or by which engine, it is computed.
"""

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageClassification

from pipeline.errors import ModelError, first_line
from pipeline.models.model import Model

READ_TOKENS = {"vit": 1, "vit_msn": 1, "deit": 2}
"""Model types whose classifiers read only the first tokens of the last hidden state: CLS, and DeiT's distillation
token. The others also read the patches."""


class LastLayer(nn.Module):  # type: ignore[misc]
    """A transformer's last layer, computed for its first tokens: they attend to all, and nobody reads the rest.

    Saves a ViT-B/16 at 224x224 6.9 % of its operations: 12.2 instead of 11.4 images/s (OpenVINO, bf16, 2 cores).
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
    """Normalises on the device, runs the classifier once, pools its last hidden state."""

    def __init__(self, model: Model, pooling: str) -> None:
        """Load the weights in float32. Raises: ModelError if they do not fit the model's own config."""
        super().__init__()
        self.classifier = load_classifier(model)
        self.pooling = pooling
        patch = int(self.classifier.config.patch_size)
        self.patches = (model.preprocessing.height // patch) * (model.preprocessing.width // patch)
        if pooling == "cls" and model.model_type in READ_TOKENS:
            layers = self.classifier.base_model.layers
            layers[-1] = LastLayer(layers[-1], READ_TOKENS[model.model_type])
        self.register_buffer("scale", torch.tensor(model.preprocessing.scale).view(1, 3, 1, 1))
        self.register_buffer("bias", torch.tensor(model.preprocessing.bias).view(1, 3, 1, 1))
        self._hidden: dict[str, torch.Tensor] = {}
        self.classifier.base_model.register_forward_hook(self._keep_hidden)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`pixels` uint8 (B, H, W, 3) -> logits (B, C) and embedding (B, D), in the weights' dtype."""
        values = pixels.permute(0, 3, 1, 2).float() * self.scale + self.bias
        weights = next(self.classifier.parameters())
        logits = self.classifier(pixel_values=values.to(weights.dtype)).logits
        hidden = self._hidden.pop("last")
        # Patch tokens are the last ones; before them stand CLS and any distillation or register tokens.
        pooled = hidden[:, 0] if self.pooling == "cls" else hidden[:, -self.patches :].mean(dim=1)
        return logits, pooled

    def _keep_hidden(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self._hidden["last"] = output[0]


def load_classifier(model: Model) -> Any:
    """The model as transformers loads it, in float32. Raises: ModelError."""
    try:
        classifier, report = AutoModelForImageClassification.from_pretrained(
            model.folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise ModelError(f"The weights of {model.name} cannot be loaded: {first_line(error)}.") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        missing = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise ModelError(
            f"The model {model.name} is not a trained image classifier: its weights lack {missing[0]}"
            f"{f' and {len(missing) - 1} more' if missing[1:] else ''}."
        )
    return classifier.eval()
