"""A model as transformers loads it, and how its embedding is made of what it computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers

from pipeline.errors import ModelError, first_line
from pipeline.models.model import Model

CLASSIFIER = "AutoModelForImageClassification"
"""The class of transformers that builds an image encoder with its head."""


def load_pretrained(model: Model) -> Any:
    """Load the model in float32 on the CPU, for inference; with its head, if it has one.

    Raises: ModelError if the weights do not fit the model's own config, or lack some that are used.
    """
    config = _encoder_config(model, "vision_config")
    return load_class(model, CLASSIFIER if model.labels else model.family.encoder, config, model.family.unused)


def load_text_encoder(model: Model) -> Any:
    """Load the text encoder in float32 on the CPU, for inference. Raises: ModelError if the model has none."""
    if model.text is None or model.family.text is None:
        raise ModelError(f"The model {model.name} has no text encoder, or no tokenizer for it.")
    return load_class(model, model.family.text.auto_class, _encoder_config(model, "text_config"))


def load_class(model: Model, name: str, config: Any, unused: tuple[str, ...] = ()) -> Any:
    """Load a class of transformers by its name. Weights that start with `unused` may be missing.

    Raises: ModelError.
    """
    try:
        with _silent():
            network, report = getattr(transformers, name).from_pretrained(
                model.folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise ModelError(f"The weights of {model.name} cannot be loaded: {first_line(error)}.") from error
    wanted = {*map(str, report["missing_keys"]), *map(str, report["mismatched_keys"])}
    missing = sorted(weight for weight in wanted if not _is_unused(weight, unused))
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise ModelError(
            f"The weights of {model.name} lack {missing[0]}{more}, which {name} needs; choose a trained model."
        )
    return network.eval()


@contextmanager
def _silent() -> Iterator[None]:
    """Load without transformers' warnings, progress bar and table of unused weights. What matters is raised."""
    log = transformers.utils.logging
    level, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bar:
            log.enable_progress_bar()


def _is_unused(weight: str, unused: tuple[str, ...]) -> bool:
    """Tell whether no embedding needs a weight, with or without the prefix of the model's own class."""
    return weight.startswith(unused) or weight.partition(".")[2].startswith(unused) if unused else False


def _encoder_config(model: Model, part: str) -> Any:
    """Return the config of one encoder: a part of the model's config where it describes two."""
    try:
        with _silent():
            config = transformers.AutoConfig.from_pretrained(
                model.folder, trust_remote_code=False, local_files_only=True
            )
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"The config of {model.name} cannot be loaded: {first_line(error)}.") from error
    encoder = getattr(config, part, config)
    if encoder is not config and hasattr(config, "projection_dim"):
        encoder.projection_dim = config.projection_dim  # transformers keeps it apart, and takes the encoder's own
    return encoder


def patch_count(network: Any, model: Model) -> int:
    """Return how many patches the network cuts an input image into."""
    size, steps = network.config.patch_size, model.preprocessing
    height, width = (size, size) if isinstance(size, int) else size
    return (steps.height // int(height)) * (steps.width // int(width))


def pool(output: Any, pooling: str, patches: int, pooled_output: str) -> torch.Tensor:
    """Make embeddings (B, D) of an encoder's output: its first token, the mean of its `patches`, or its pooled
    output.

    Patches are the last tokens: CLS and any distillation or register tokens stand before them.
    """
    if pooling == "pooled":
        return output[pooled_output]
    hidden = output[0]
    return hidden[:, 0] if pooling == "cls" else hidden[:, -patches:].mean(dim=1)
