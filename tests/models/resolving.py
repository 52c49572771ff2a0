"""Resolve models in tests: a model, its fingerprint, or why it is refused."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import DecodeConfig, EmbeddingConfig, ModelConfig
from pipeline.errors import ModelError
from pipeline.models import model
from pipeline.models.model import Model
from tests.support.making import STORAGE


def resolve(folder: Path | str, **settings: Any) -> Model:
    return model.resolve(ModelConfig(name=str(folder), **settings), STORAGE)


def fingerprint(folder: Path | str, *, fast: bool = False, **embedding: Any) -> str:
    description = resolve(folder).space(EmbeddingConfig(**embedding), DecodeConfig(fast=fast))
    return str(description["fingerprint"])


def refusal(folder: Path | str, **settings: Any) -> str:
    with pytest.raises(ModelError) as caught:
        resolve(folder, **settings)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)
