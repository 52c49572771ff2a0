"""What several tests of contracts share."""

from pathlib import Path

import pytest

from tests.support import lakes
from tests.support.kuberay_manifests import FILES, Manifest, loaded


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def manifest(request: pytest.FixtureRequest) -> Manifest:
    """Every manifest of configs/kuberay, one after the other."""
    return loaded(request.param)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lakes.tiny_vit(tmp_path_factory.mktemp("model"))


@pytest.fixture
def config_file(model: Path, tmp_path: Path) -> Path:
    """A config of three images, and the images."""
    lakes.folder_of_images(tmp_path / "photos", 3)
    path = tmp_path / "config.yaml"
    path.write_text(lakes.settings(tmp_path / "photos", model, tmp_path / "out").to_yaml())
    return path
