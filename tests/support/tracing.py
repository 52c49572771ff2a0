"""Stand-ins for workers, which note what they work on, and for a device of a fixed rate. All else is real."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from pipeline.cluster.workers import Decoder, Predictor
from pipeline.config import RunConfig
from pipeline.engines.base import Engine, Scored

IMAGE_S = 0.01
"""Seconds that the device takes for an image."""


class SleepingEngine(Engine):
    """Makes up a label and a vector, and takes its time."""

    device, precision = "sleep", "fp32"

    @classmethod
    def load(cls, *_model: Any, **_options: Any) -> "SleepingEngine":
        """Take the place of `loading.load_engine`."""
        return cls()

    def start(self, pixels: NDArray[np.uint8]) -> Callable[[], Scored]:
        time.sleep(len(pixels) * IMAGE_S)
        found = np.zeros((len(pixels), 1), np.int32)
        scored = Scored(found, found.astype(np.float32), np.ones((len(pixels), 8), np.float32))
        return lambda: scored


class Trace:
    """A file that one worker writes: a line when it begins a block, and one when it has ended it."""

    def __init__(self, output: str, kind: str) -> None:
        folder = Path(f"{output}.trace")
        folder.mkdir(exist_ok=True)
        self._path = folder / f"{kind}-{os.getpid()}.jsonl"
        self._node = ray.get_runtime_context().get_node_id()
        self.note("ready")

    def note(self, what: str, rows: pa.Table | None = None) -> None:
        ids = rows["image_id"].to_pylist() if rows is not None else []
        line = {"what": what, "at": time.time(), "node": self._node, "ids": ids}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def read(output: Path, kind: str) -> list[dict[str, Any]]:
    """What the workers of one kind noted, in order of time; each line with its `worker`."""
    files = Path(f"{output}.trace").glob(f"{kind}-*.jsonl")
    lines = [json.loads(line) | {"worker": file.stem} for file in files for line in file.read_text().splitlines()]
    return sorted(lines, key=lambda line: float(line["at"]))


class TracedDecoder(Decoder):
    """The real one; it notes what it has decoded."""

    def __init__(self, config: RunConfig, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._trace = Trace(config.output.path, "decoder")

    def __call__(self, rows: pa.Table) -> pa.Table:
        found = super().__call__(rows)
        self._trace.note("ended", rows)
        return found


class TracedPredictor(Predictor):
    """The real one, but for its engine; it notes what it begins and ends to predict."""

    def __init__(self, output: str, **settings: Any) -> None:
        super().__init__(output=output, load_engine=SleepingEngine.load, **settings)
        self._trace = Trace(output, "predictor")

    def __call__(self, rows: pa.Table) -> pa.Table:
        self._trace.note("begun", rows)
        found = super().__call__(rows)
        self._trace.note("ended", rows)
        return found
