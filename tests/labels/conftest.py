"""An output with vectors, and heads for its space."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.labels import head as heads
from pipeline.labels.head import Head, HeadDescription, Origin
from tests.support.histories import DIM, History
from tests.support.making import STORAGE

LABELS = ("cat", "dog", "owl")


@pytest.fixture
def history(tmp_path: Path) -> History:
    """Twelve labelled images in two datasets, and a failed one."""
    made = History(tmp_path / "out")
    made.run(ok="abcdef", failed="x")
    made.run(ok="ghijkl", dataset="map")
    (made.path / "space.json").write_text(
        json.dumps({"format": 2, "fingerprint": "f00", "model": "m", "dim": DIM})
    )
    return made


def head(seed: int = 0, **description: object) -> Head:
    rng = np.random.default_rng(seed)
    given = {"labels": LABELS, "kind": "softmax", "input": "raw", "fingerprint": "f00", "model": "m"} | description
    made = HeadDescription.model_validate({**given, "made": Origin(by="test", at="2024-01-01")})
    classes = len(made.labels)
    return Head(
        made, rng.normal(size=(classes, DIM)).astype(np.float32), rng.normal(size=classes).astype(np.float32)
    )


@pytest.fixture
def saved(tmp_path: Path) -> str:
    """The folder of a head that is called species."""
    folder = str(tmp_path / "heads" / "species")
    heads.save(head(), folder, STORAGE)
    return folder
