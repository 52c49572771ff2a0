"""A tiny ViT as a Hugging Face folder, and a copy of it that a test may spoil."""

import shutil
from pathlib import Path

import pytest

from tests.support.making import tiny_model


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny-vit")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of the tiny ViT that a test may spoil."""
    return Path(shutil.copytree(original, tmp_path / "tiny-vit"))
