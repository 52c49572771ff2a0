"""Where the time of a run goes: the seconds that workers spend on each block, and the stage that others wait for.

The metadata of a block's Arrow schema has its seconds. So they count exactly once, together with its rows.
"""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields

import pyarrow as pa

_KEY = b"lakelens.seconds"
LEAST_S = 10.0
"""Shorter measurements of a stage, in seconds of its workers, are ignored."""
BUSY = 0.5
"""Utilisation below which a stage is never the bottleneck."""


@dataclass(frozen=True)
class Seconds:
    """Seconds of workers, added up.

    fetch: decoders wait for bytes.
    decode: decoders decode.
    decoder_waiting: decoders wait for rows, or until the next stage takes a block.
    predict: predictors compute.
    predictor_waiting: predictors wait for rows.
    """

    fetch: float = 0.0
    decode: float = 0.0
    decoder_waiting: float = 0.0
    predict: float = 0.0
    predictor_waiting: float = 0.0

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def decoders_busy(self) -> float:
        """The utilisation of decoders; 0 if it was measured for less than `LEAST_S`."""
        return _share(self.fetch + self.decode, self.decoder_waiting)

    @property
    def predictors_busy(self) -> float:
        """The utilisation of predictors; 0 if it was measured for less than `LEAST_S`."""
        return _share(self.predict, self.predictor_waiting)

    @property
    def bottleneck(self) -> str | None:
        """The stage that others wait for: fetch, decode or predict. None if no stage is busy, or if one of them
        was measured for less than `LEAST_S`."""
        decoders, predictors = self.decoders_busy, self.predictors_busy
        if not decoders or not predictors or max(decoders, predictors) < BUSY:
            return None
        if predictors >= decoders:
            return "predict"
        return "fetch" if self.fetch > self.decode else "decode"

    def advice(self, device: str) -> str | None:
        """Return what would make the run faster, as text; None if there is no known bottleneck.

        `device` is the predictors' device: GPU, TPU or CPU.
        """
        stage, busy = self.bottleneck, f"predictors were busy {self.predictors_busy:.0%} of their time"
        if stage is None:
            return None
        if stage == "predict":
            more = "nodes" if device == "CPU" else f"{device}s"
            return f"predict was the bottleneck: {busy}; add {more}"
        factor = 1 / self.predictors_busy
        more = f"{factor:.1f} times as many decoders (CPUs) would keep the predictors busy"
        faster = "" if stage == "decode" else "; so would a faster store"
        return f"{stage} was the bottleneck: {busy}; {more}{faster}"


def attach(block: pa.Table, seconds: Seconds) -> pa.Table:
    """Return the block with the seconds that its rows took in its metadata."""
    facts = {"rows": block.num_rows, **dataclasses.asdict(seconds)}
    return block.replace_schema_metadata({_KEY: json.dumps(facts)})


def total(blocks: Iterable[pa.Table]) -> Seconds:
    """Add up the seconds of blocks. If Ray has cut a block, each piece counts in proportion to its rows."""
    return sum(map(_of_block, blocks), Seconds())


def _of_block(block: pa.Table) -> Seconds:
    text = (block.schema.metadata or {}).get(_KEY)
    if text is None:
        return Seconds()
    facts = json.loads(text)
    share = block.num_rows / (facts.pop("rows") or 1)
    return Seconds(**{name: share * value for name, value in facts.items()})


def _share(working: float, waiting: float) -> float:
    return working / (working + waiting) if working + waiting >= LEAST_S else 0.0
