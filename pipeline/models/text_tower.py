"""What a model says of its text encoder. This module computes nothing: `engines.text` does."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.models.families import Family
from pipeline.models.weight_names import read_number

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
)
"""The files of a tokenizer. None of them is code."""


@dataclass(frozen=True)
class TextTower:
    """The text encoder of a model.

    `max_length` is in tokens. A cosine c of an image and a text becomes the logit `c * exp(scale) + bias`.
    `sha256` covers the weights and the tokenizer.
    """

    max_length: int
    scale: float | None
    bias: float | None
    sha256: str


def read_text_tower(
    folder: Path,
    family: Family,
    settings: Mapping[str, Any],
    files: Sequence[Path],
    names: frozenset[str],
    weights_sha256: str,
) -> TextTower | None:
    """Read what a model's folder says of its text encoder. Return None if it has none, or no tokenizer for it."""
    record = family.text
    tokenizer = [folder / name for name in TOKENIZER_FILES if (folder / name).exists()]
    if record is None or not tokenizer or not any(name.startswith(record.weights) for name in names):
        return None
    digest = hashlib.sha256(weights_sha256.encode())
    for path in tokenizer:
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return TextTower(
        max_length=int(record.max_length.of(settings)),
        scale=read_number(files, record.scale),
        bias=read_number(files, record.bias) if record.bias else None,
        sha256=digest.hexdigest(),
    )
