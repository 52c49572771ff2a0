"""A Hugging Face image classifier as one torch module: uint8 pixels -> logits and embedding.

One forward pass gives both. It does not know on what device, or by which engine, it is computed.
"""

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageClassification

from pipeline.errors import ModelError
from pipeline.model import Model


class Network(nn.Module):  # type: ignore[misc]
    """Normalises on the device, runs the classifier once, pools its last hidden state."""

    def __init__(self, model: Model, pooling: str) -> None:
        """Load the weights in float32. Raises: ModelError if they do not fit the model's own config."""
        super().__init__()
        self.classifier = _load(model)
        self.pooling = pooling
        patch = int(self.classifier.config.patch_size)
        self.patches = (model.preprocessing.height // patch) * (model.preprocessing.width // patch)
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


def _load(model: Model) -> Any:
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
        raise ModelError(f"The weights of {model.name} cannot be loaded: {str(error).splitlines()[0]}.") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        missing = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise ModelError(
            f"The model {model.name} is not a trained image classifier: its weights lack {missing[0]}"
            f"{f' and {len(missing) - 1} more' if missing[1:] else ''}."
        )
    return classifier.eval()
