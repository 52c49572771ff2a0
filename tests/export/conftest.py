"""What the tests of exports share: one output, exported many times."""

from pathlib import Path

import pytest

from pipeline.face.opened_space import Space, open_space
from pipeline.output import space as spaces
from tests.support import outputs
from tests.support.histories import History
from tests.support.making import STORAGE
from tests.support.outputs import DIM, Output

NAMES = ("007", "2024-01-01", "street a/b")
"""Datasets of the output: readers guess types from two of them, and one is no name of a folder."""


def described(path: Path) -> None:
    """Give an output the description of its space."""
    spaces.claim(str(path), {"fingerprint": "f" * 16, "model": "tiny", "dim": DIM, "labels": ["cat"]}, STORAGE)


@pytest.fixture(scope="session")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    """An output with 18 ok rows in three datasets, 6 failed ones, and a kept column."""
    written = outputs.write_output(tmp_path_factory.mktemp("exported") / "out", NAMES)
    (written.path / "space.json").unlink()
    described(written.path)
    return written


@pytest.fixture
def opened(output: Output) -> Space:
    return open_space(str(output.path))


@pytest.fixture
def history(tmp_path: Path) -> History:
    """An output in which one run has labelled four images of one dataset."""
    made = History(tmp_path / "out")
    made.run(ok="abcd")
    described(made.path)
    return made
