"""Whether an output is exactly what an undisturbed run would have left; it reads a local copy."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from deltalake import DeltaTable

from pipeline import errors
from tests.support import lakes

Row = dict[str, Any]
VARYING = ("run_id", "finished_at", "attempts")
"""Columns that are not the images'."""
STORE_CODES = tuple(sorted(code.value for code in errors.STORE_CODES))
"""What a disturbed store may have made of a row; `backfill --failed` puts it right."""
TOLERANCE = 2e-3
SHOWN = 3


def rows(output: Path, roots: Sequence[str] = ()) -> list[Row]:
    """All rows of a plain glob, without what varies; URIs are relative to these roots."""
    found = lakes.predictions(output)
    for row in found:
        for name in VARYING:
            del row[name]
        for root in roots:
            row["uri"] = row["uri"].removeprefix(f"{root}/")
    return found


def refused_by_store(found: Sequence[Row]) -> int:
    """How many rows failed for the store's sake."""
    return sum(row["error_code"] in STORE_CODES for row in found)


def problems(output: Path, found: Sequence[Row], expected: Sequence[Row], input_rows: int) -> list[str]:
    """Every way in which an output at rest, whose glob gives `found`, is not as it should be."""
    return [
        *differences(found, expected),
        *files(output, found),
        *_log(output),
        *_account(output, len(found), input_rows),
    ]


def differences(found: Sequence[Row], expected: Sequence[Row]) -> Iterator[str]:
    """Rows that are doubled, missing, not expected or other than expected."""
    counts = Counter(row["image_id"] for row in found)
    doubled = [id_ for id_, count in counts.items() if count > 1]
    wanted = {row["image_id"]: row for row in expected}
    missing, strange = wanted.keys() - counts.keys(), counts.keys() - wanted.keys()
    for what, ids in (("doubled", doubled), ("missing", missing), ("not expected", strange)):
        if ids:
            yield f"{len(ids)} rows are {what}: {', '.join(sorted(ids)[:SHOWN])}"
    other = [(row, wanted[row["image_id"]]) for row in found if row["image_id"] in wanted]
    differing = [(row, want) for row, want in other if not _same(row, want)]
    if differing:
        row, want = differing[0]
        names = [name for name in want if not _same(row.get(name), want[name])]
        yield f"{len(differing)} rows differ; {row['image_id']} in {[(n, row.get(n), want[n]) for n in names]}"


def _same(one: Any, other: Any) -> bool:
    """Equal, numbers within the tolerance."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        if one and other and isinstance(one[0], float) and len(one) == len(other):
            return bool(np.allclose(one, other, rtol=0, atol=TOLERANCE))
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= TOLERANCE * max(1.0, abs(other))
    return bool(one == other)


def files(output: Path, found: Sequence[Row]) -> Iterator[str]:
    """The files on disk, hidden ones too, are those that the log names, and both give the same rows."""
    folder = output / "predictions"
    table = DeltaTable(str(folder))
    named = set(table.file_uris())
    there = {str(path) for path in folder.rglob("*") if path.is_file() and "_delta_log" not in path.parts}
    for what, paths in (("orphans", there - named), ("named files that are not there", named - there)):
        if paths:
            yield f"{len(paths)} {what}: {', '.join(sorted(paths)[:SHOWN])}"
    if named <= there:
        read = table.to_pyarrow_table(columns=["image_id", "dataset", "outcome"]).to_pylist()
        by_log = Counter((row["image_id"], row["dataset"], row["outcome"]) for row in read)
        if by_log != Counter((row["image_id"], row["dataset"], row["outcome"]) for row in found):
            yield f"the glob gives {len(found)} rows and the log {len(read)}, which are not the same"


def _log(output: Path) -> Iterator[str]:
    """Epochs never go back, and no file is added twice."""
    newest, added = 0, Counter[str]()
    for entry in sorted((output / "predictions" / "_delta_log").glob("*.json")):
        actions = [json.loads(line) for line in entry.read_text().splitlines()]
        for epoch in (action["txn"]["version"] for action in actions if "txn" in action):
            if epoch < newest:
                yield f"{entry.name} is of epoch {epoch}, after one of epoch {newest}"
            newest = max(newest, epoch)
        added.update(action["add"]["path"] for action in actions if "add" in action)
    if any(count > 1 for count in added.values()):
        yield f"a file was added twice: {added.most_common(1)[0][0]}"


def _account(output: Path, found: int, input_rows: int) -> Iterator[str]:
    """The closing run's account balances, and speaks of every row of the manifest and of the table."""
    summaries = [json.loads(path.read_text()) for path in (output / "runs").glob("*/summary.json")]
    if not summaries:
        yield "no run has a summary"
        return
    last = max(summaries, key=lambda summary: summary["epoch"])
    total, datasets = last["account"]["total"], last["account"]["datasets"]
    for name, counts in {"the total": total, **datasets}.items():
        if counts["input"] != sum(counts.values()) - counts["input"]:
            yield f"the account of {name} does not balance: {counts}"
    if any(total[key] != sum(counts[key] for counts in datasets.values()) for key in total):
        yield "the account's total is not the sum of its datasets"
    held = total["already_done"] + total["ok"] + total["failed"]
    if last["status"] != "finished" or (total["input"], held, total["left"]) != (input_rows, found, 0):
        yield f"the account of {input_rows} input rows and {found} in the table is {last['status']}: {total}"
