"""Outputs with a history of runs, compactions and vacuums, written without a model or an image."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from hypothesis import strategies as st

from pipeline import schema
from pipeline.output import compaction, maintenance
from pipeline.output.fragment_files import write_fragments, write_remaining_rows
from pipeline.output.layout import Layout
from pipeline.output.reader import PredictionsReader
from pipeline.output.table import Predictions
from tests.support.making import STORAGE

DIM = 8

Step = tuple[Any, ...]
IDS = st.sets(st.sampled_from("abcdefgh"), max_size=4)
RUN = st.tuples(st.just("run"), IDS, IDS, st.sampled_from(["street", "map"]))
MAINTENANCE = st.sampled_from([("compact",), ("compact and keep",), ("vacuum",), ("delete",)])
STEPS = st.lists(st.one_of(RUN, RUN, MAINTENANCE), min_size=1, max_size=8)
"""Steps of a random history, for `play`."""


@dataclass
class History:
    """An output, and the ok rows that it must have: `image_id` to its dataset and the run that made it."""

    path: Path
    rows: dict[str, tuple[str, str]] = field(default_factory=dict)
    runs: int = 0

    @property
    def version(self) -> int:
        return Predictions.existing(str(self.path), STORAGE).version

    def reader(self) -> PredictionsReader:
        return PredictionsReader.open(str(self.path), STORAGE)

    def run(self, ok: Collection[str] = (), failed: Collection[str] = (), dataset: str = "street") -> None:
        """One commit of rows; those with an id that the table has replace the older row of this dataset."""
        table = Predictions.create(str(self.path), STORAGE, [])
        self.runs += 1
        run_id = f"run-{self.runs:03}"
        epoch = table.claim(run_id, [])
        assert epoch is not None
        rows = _rows({**dict.fromkeys(ok, schema.OK), **dict.fromkeys(failed, schema.FAILED)}, dataset, run_id)
        place: dict[str, Any] = {"output": str(self.path), "storage": STORAGE, "epoch": epoch}
        written = [result.fragment for result in write_fragments(rows, **place)]
        newer = [fragment.path for fragment in written]
        remaining = {
            file.path: write_remaining_rows(file.path, newer, **place)
            for file in table.visible_files()
            if file.dataset == dataset
        }
        replaced = {path: rest.fragment for path, rest in remaining.items() if rest.removed}
        table.commit(written, run_id, epoch, replaced)
        self.rows = {id_: held for id_, held in self.rows.items() if id_ not in {*ok, *failed}}
        self.rows |= dict.fromkeys(ok, (dataset, run_id))

    def compact(self, *, keep_replaced: bool = False) -> None:
        list(compaction.compact(str(self.path), STORAGE, keep_replaced=keep_replaced))

    def vacuum(self) -> None:
        maintenance.vacuum(str(self.path), STORAGE, older_than_days=0)

    def delete_by_other_program(self, image_id: str) -> None:
        DeltaTable(Layout(str(self.path)).predictions).delete(f"image_id = '{image_id}'")
        self.rows.pop(image_id, None)


def vector(image_id: str, run_id: str) -> list[float]:
    """A unit vector of `DIM` values that float16 holds: another one for each image and run."""
    raw = np.random.default_rng([*f"{image_id}/{run_id}".encode()]).normal(size=DIM)
    return [float(value) for value in (raw / np.linalg.norm(raw)).astype(np.float16)]


def _rows(outcomes: Mapping[str, str], dataset: str, run_id: str) -> pa.Table:
    always = {schema.DATASET: dataset, "run_id": run_id, "finished_at": datetime(2024, 1, 1, tzinfo=UTC)}
    labelled = {"label": "cat", "score": 0.75, "embedding_norm": 2.0, "width": 640, "height": 480}
    broken = {"stage": "decode", "error_code": "corrupt", "message": "the file is damaged"}
    rows = [
        {schema.IMAGE_ID: id_, schema.URI: f"{id_}.jpg", schema.OUTCOME: outcome, **always}
        | ({**labelled, "embedding": vector(id_, run_id)} if outcome == schema.OK else broken)
        for id_, outcome in outcomes.items()
    ]
    return pa.Table.from_pylist(rows, schema=schema.scored([]))


def play(history: History, steps: list[Step]) -> None:
    """Do these steps, as far as the rows that there are allow them."""
    for step in steps:
        match step:
            case ("run", ok, failed, dataset):
                placed = {id_ for id_, (held, _) in history.rows.items() if held != dataset}
                failed -= {*ok, *placed}
                if failed or ok - placed:
                    history.run(ok=ok - placed, failed=failed, dataset=dataset)
            case ("vacuum",):
                history.vacuum()
            case ("delete",):
                history.delete_by_other_program(min(history.rows, default="none"))
            case (compaction,):
                history.compact(keep_replaced=compaction == "compact and keep")
