"""Plans for tests: a manifest of a few rows, a table, and what is pending."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.config import ManifestConfig
from pipeline.output.table import Predictions
from pipeline.planning.account import Account
from pipeline.planning.plan import open_plan
from pipeline.planning.selection import NEW_AND_CHANGED, Selection
from tests.support.making import STORAGE, write_fragment

Rows = list[dict[str, Any]]


def config(folder: Path, rows: Rows, **settings: Any) -> ManifestConfig:
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ManifestConfig(path=(str(path),), **settings)


def outcome(
    manifest: ManifestConfig,
    out: Path,
    table: Predictions | None = None,
    selection: Selection = NEW_AND_CHANGED,
) -> tuple[Account, Rows]:
    """The account of a plan, and its pending rows as they are on disk."""
    with open_plan(manifest, STORAGE, table, selection) as found:
        files = found.write_pending(str(out), STORAGE)
        assert found.pending == found.account.total.left
    found.account.check()
    return found.account, [row for file in files for row in pq.read_table(file).to_pylist()]


def committed(output: Path, ids: dict[str, Sequence[str]]) -> Predictions:
    """A table that holds these ids, by dataset."""
    table = Predictions.create(str(output), STORAGE, [])
    epoch = table.claim("run", [])
    assert epoch is not None
    table.commit([write_fragment(str(output), name, rows, epoch) for name, rows in ids.items()], "run", epoch)
    return table
