"""Predictions tables, and what others see and do in them."""

import json
from collections import Counter
from pathlib import Path

from deltalake import DeltaTable, Field

from pipeline.output.layout import PREDICTIONS
from pipeline.output.table import Predictions
from tests.support.making import STORAGE


def opened(out: str) -> Predictions:
    found = Predictions.open(out, STORAGE)
    assert found is not None
    return found


def claimed(out: str, run_id: str = "one") -> tuple[Predictions, int]:
    """A table that this run has claimed."""
    found = Predictions.create(out, STORAGE, [])
    epoch = found.claim(run_id, [])
    assert epoch is not None
    return found, epoch


def ids(out: str) -> list[str]:
    """What any reader sees, sorted."""
    delta = DeltaTable(f"{out}/{PREDICTIONS}")
    return sorted(delta.to_pyarrow_table(columns=["image_id"]).column("image_id").to_pylist())


def commit_ids(out: str) -> Counter[str]:
    infos = (
        json.loads(line).get("commitInfo", {})
        for file in Path(out, PREDICTIONS, "_delta_log").glob("*.json")
        for line in file.read_text().splitlines()
    )
    return Counter(info["commit_id"] for info in infos if "commit_id" in info)


def maintain(out: str, column: str = "note") -> None:
    """A commit by someone else that knows nothing of LakeLens."""
    DeltaTable(f"{out}/{PREDICTIONS}").alter.add_columns([Field(column, "string")])
