"""A head made of words: the classes are texts in the space of the images, and nothing is learned."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np

from pipeline.errors import HeadError
from pipeline.labels.head import Head, HeadDescription, Origin
from pipeline.labels.scoring import F32
from pipeline.output.space import SpaceDescription
from pipeline.storage.filesystems import Storage

TEMPLATE = "a photo of a {}"
"""The sentence that a class's name is put into: CLIP's own."""


def read_classes(classes: str, storage: Storage) -> list[str]:
    """Return the names of classes: comma-separated, or the lines of a file on any store. Raises: HeadError."""
    data = storage.read(classes) if "," not in classes else None
    names = classes.split(",") if data is None else data.decode().splitlines()
    return [name.strip() for name in names if name.strip()]


def make(
    classes: Sequence[str],
    templates: Sequence[str],
    space: SpaceDescription,
    encode: Callable[[list[str]], F32],
) -> Head:
    """Make a head of the classes' names. With several templates, a class is the mean of its sentences.

    `encode` maps N texts to float32 (N, D). Scores are those of the model: softmax for CLIP, sigmoid where the
    model has a bias, as SigLIP. Raises: HeadError for no classes, or a template without {}.
    """
    if not classes:
        raise HeadError("There are no classes. Name some.")
    for template in templates:
        if "{}" not in template:
            raise HeadError(f"The template {template!r} has no {{}}, where the name of a class would stand.")
    vectors = [_mean(encode([template.replace("{}", name) for template in templates])) for name in classes]
    text = space.text or {}
    scale, bias = text.get("scale"), text.get("bias")
    return Head(
        HeadDescription(
            labels=tuple(classes),
            kind="softmax" if bias is None else "sigmoid",
            input="normalised",
            scale=float(np.exp(scale)) if scale is not None else 1.0,
            fingerprint=space.fingerprint,
            model=space.model,
            made=Origin.model_validate(
                {
                    "by": "words",
                    "at": datetime.now(UTC).isoformat(timespec="seconds"),
                    "templates": list(templates),
                }
            ),
        ),
        np.vstack(vectors).astype(np.float32),
        np.full(len(classes), bias or 0.0, np.float32),
    )


def _mean(vectors: F32) -> F32:
    """Return the mean direction of vectors (N, D), of length 1."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    mean: F32 = unit.mean(axis=0)
    return mean / np.float32(np.linalg.norm(mean))
