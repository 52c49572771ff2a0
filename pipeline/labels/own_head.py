"""The head of the model that made an output, where it is linear on the stored embedding."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors import safe_open

from pipeline.errors import HeadError
from pipeline.labels.head import Head, HeadDescription, Origin
from pipeline.labels.scoring import F32
from pipeline.models.model_files import weights_of
from pipeline.space_model import SpaceModel

WEIGHT, BIAS = "classifier.weight", "classifier.bias"
"""The names of the weights in the models of transformers."""


def make(space: SpaceModel, output: str) -> Head:
    """Take the head of the model. Raises: HeadError if it has none, or if it reads more than the embedding."""
    model, description = space.model, space.description
    if not model.labels:
        raise HeadError(f"The model {model.name} of {output} has no classification head.")
    weights = _weights(weights_of(model.folder, model.name))
    if model.family.linear_head != description.pooling or WEIGHT not in weights:
        raise HeadError(
            f"The head of {model.name} ({model.model_type}) cannot be computed from the embeddings of {output}, "
            f"because it reads more than a vector with pooling {description.pooling!r}. The labels of the "
            "predictions are those of this head."
        )
    weight = weights[WEIGHT]
    return Head(
        HeadDescription(
            labels=model.labels,
            kind="softmax",
            input="raw",
            fingerprint=description.fingerprint,
            model=description.model,
            made=Origin(by="own", at=datetime.now(UTC).isoformat(timespec="seconds")),
        ),
        weight,
        weights.get(BIAS, np.zeros(len(weight), np.float32)),
    )


def _weights(files: list[Path]) -> dict[str, F32]:
    found = dict[str, F32]()
    for path in files:
        with safe_open(path, framework="torch") as weights:  # numpy has no bfloat16
            names = {WEIGHT, BIAS} & set(weights.keys())
            found |= {name: weights.get_tensor(name).float().numpy() for name in names}
    return found
