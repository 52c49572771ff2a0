"""Where a run's time goes: what every block took of its workers, and which stage the others waited for.

The seconds of a block travel in the metadata of its Arrow schema, so that they count exactly once, with its rows.
"""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields

import pyarrow as pa

_KEY = b"lakelens.seconds"
LEAST_S = 10.0
"""Seconds of a stage's workers below which nothing is said of it."""
BUSY = 0.5
"""A stage that works less than this share of its time keeps nobody waiting."""


@dataclass(frozen=True)
class Seconds:
    """Seconds of workers, added up: decoders waiting for bytes, decoding, and waiting for rows or for room behind
    them; predictors predicting, and waiting for rows."""

    fetch: float = 0.0
    decode: float = 0.0
    decoder_waiting: float = 0.0
    predict: float = 0.0
    predictor_waiting: float = 0.0

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def decoders_busy(self) -> float:
        """Share of their time in which decoders work; 0 if too little of it is known."""
        return _share(self.fetch + self.decode, self.decoder_waiting)

    @property
    def predictors_busy(self) -> float:
        """Share of their time in which predictors work; 0 if too little of it is known."""
        return _share(self.predict, self.predictor_waiting)

    @property
    def bottleneck(self) -> str | None:
        """The stage that the other one waits for: fetch, decode or predict; None if neither is busy, or too little
        is known of one."""
        decoders, predictors = self.decoders_busy, self.predictors_busy
        if not decoders or not predictors or max(decoders, predictors) < BUSY:
            return None
        if predictors >= decoders:
            return "predict"
        return "fetch" if self.fetch > self.decode else "decode"

    def advice(self, device: str) -> str | None:
        """What would make the run faster, as a sentence; None if the bottleneck is not known.

        `device` is what predictors compute on: GPU, TPU or CPU.
        """
        stage, busy = self.bottleneck, f"{self.predictors_busy:.0%}"
        if stage is None:
            return None
        if stage == "predict":
            more = "nodes" if device == "CPU" else f"{device}s"
            return f"predict was the bottleneck: predictors were busy for {busy} of their time; add {more}"
        factor = 1 / self.predictors_busy
        more = f"{factor:.1f} times as many decoders (CPUs) would keep the predictors busy"
        near = "" if stage == "decode" else ", as would a store that answers faster"
        return f"{stage} was the bottleneck: predictors were busy for {busy} of their time; {more}{near}"


def noted(block: pa.Table, seconds: Seconds) -> pa.Table:
    """The block, marked with the seconds that its rows took."""
    facts = {"rows": block.num_rows, **dataclasses.asdict(seconds)}
    return block.replace_schema_metadata({_KEY: json.dumps(facts)})


def of(blocks: Iterable[pa.Table]) -> Seconds:
    """What these blocks are marked with, added up; of a block that Ray has cut, each part has its part of it."""
    return sum(map(_of, blocks), Seconds())


def _of(block: pa.Table) -> Seconds:
    text = (block.schema.metadata or {}).get(_KEY)
    if text is None:
        return Seconds()
    facts = json.loads(text)
    part = block.num_rows / (facts.pop("rows") or 1)
    return Seconds(**{name: part * value for name, value in facts.items()})


def _share(working: float, waiting: float) -> float:
    return working / (working + waiting) if working + waiting >= LEAST_S else 0.0
