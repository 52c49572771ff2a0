"""What several tests of contracts share."""

import pytest

from tests.support.kuberay_manifests import FILES, Manifest, loaded


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def manifest(request: pytest.FixtureRequest) -> Manifest:
    """Every manifest of configs/kuberay, one after the other."""
    return loaded(request.param)
