"""A model as transformers loads it, and how its embedding is made of its last hidden state."""

from typing import Any

import torch
import transformers

from pipeline.errors import ModelError, first_line
from pipeline.models.model import Model


def load_pretrained(model: Model) -> Any:
    """Load the model with its head in float32, on the CPU, for inference.

    Raises: ModelError if the weights do not fit the model's own config, or lack the head.
    """
    try:
        network, report = getattr(transformers, model.family.auto_class).from_pretrained(
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
    return network.eval()


def patch_count(network: Any, model: Model) -> int:
    """Return how many patches the network cuts an input image into."""
    size, steps = int(network.config.patch_size), model.preprocessing
    return (steps.height // size) * (steps.width // size)


def pool(hidden: torch.Tensor, pooling: str, patches: int) -> torch.Tensor:
    """Make embeddings (B, D) of a last hidden state (B, T, D): its first token, or the mean of its `patches`.

    Patches are the last tokens: CLS and any distillation or register tokens stand before them.
    """
    return hidden[:, 0] if pooling == "cls" else hidden[:, -patches:].mean(dim=1)
