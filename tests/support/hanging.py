"""Stand-ins for workers that hang at certain blocks; all else is real. Workers import this: it is small."""

import ctypes
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
from pipeline.engines import loading
from pipeline.engines.base import Engine, Scored
from pipeline.output.fragment import WriteResult
from pipeline.output.fragment_files import write_fragments
from pipeline.storage.filesystems import Storage

HOUR_S = 3600
HELD, STUCK, ASLEEP = "2 held", "3 stuck", "4 asleep"
"""Datasets of the blocks that are written at a word, at which a predictor's engine hangs, and a decoder sleeps."""
WORD = "word"
"""The name of a file beside the output. The write of a held block waits for it."""


class HangingEngine(Engine):
    """A real engine that hangs in C code once it is told to: no other thread of its process can go on."""

    def __init__(self, engine: Engine) -> None:
        self.device, self.precision, self.in_flight = engine.device, engine.precision, engine.in_flight
        self.hangs = False
        self._engine = engine

    def start(self, pixels: NDArray[np.uint8]) -> Callable[[], Scored]:
        if self.hangs:
            ctypes.PyDLL(None).sleep(HOUR_S)
        return self._engine.start(pixels)


class HangingPredictor(Predictor):
    """Its engine hangs at the block `STUCK`; it leaves a file of that name."""

    def __init__(self, output: str, **settings: Any) -> None:
        super().__init__(output=output, load_engine=self._load_hanging, **settings)
        self._folder = Path(output).parent

    def _load_hanging(self, *model: Any, **options: Any) -> HangingEngine:
        self._hanging = HangingEngine(loading.load_engine(*model, **options))
        return self._hanging

    def __call__(self, rows: pa.Table) -> pa.Table:
        if rows["dataset"][0].as_py() == STUCK:
            self._hanging.hangs = True
            (self._folder / STUCK).touch()
        return super().__call__(rows)


class SleepingDecoder(Decoder):
    """Sleeps at the block `ASLEEP`; it leaves a file of that name."""

    def __init__(self, config: RunConfig, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._folder = Path(config.output.path).parent

    def __call__(self, rows: pa.Table) -> pa.Table:
        if rows["dataset"][0].as_py() == ASLEEP:
            (self._folder / ASLEEP).touch()
            time.sleep(HOUR_S)
        return super().__call__(rows)


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def write_when_told(*blocks: pa.Table, output: str, **place: Any) -> list[WriteResult]:
    """The real task; a block that is `HELD` waits for the word, and leaves a file of that name."""
    folder = Path(output).parent
    if HELD in blocks[0]["dataset"].to_pylist():
        (folder / HELD).touch()
        while not (folder / WORD).exists():
            time.sleep(0.02)
    return write_fragments(*blocks, output=output, **place)


def sleep(seconds: float) -> None:
    """Raises: ValueError if that is negative."""
    time.sleep(seconds)


def never_read(files: pa.Table, storage: Storage) -> pa.Table:
    """A reader of the plan that sleeps; it leaves a file beside the plan's."""
    Path(files["uri"][0].as_py()).with_suffix(".asked").touch()
    time.sleep(HOUR_S)
    return files


def second_never(batch: dict[str, Any]) -> dict[str, Any]:
    """Numbers from 0; it gives the 0 alone."""
    time.sleep(HOUR_S * int(batch["id"][0]))
    return batch


class Sleeper:
    """An actor of somebody's."""

    def sleep(self) -> None:
        """For an hour."""
        time.sleep(HOUR_S)
