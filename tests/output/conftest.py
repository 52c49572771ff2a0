"""What several tests of outputs share."""

from pathlib import Path

import pytest


@pytest.fixture
def out(tmp_path: Path) -> str:
    """The place of an output that does not exist yet."""
    return str(tmp_path / "out")
