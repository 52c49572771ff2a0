"""Maintain an output: delete files that no reader sees, and list its commits.

Maintenance is safe beside a running job. It never changes a row.
"""

import getpass
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from deltalake.exceptions import DeltaError

from pipeline.errors import TableError, first_line
from pipeline.output import heartbeat, label_table, orphans, space
from pipeline.output.label_table import LabelTable
from pipeline.output.layout import PENDING, Layout
from pipeline.output.table import Predictions
from pipeline.storage.filesystems import Storage, failure
from pipeline.storage.uris import join

WIDENED = "widened"
"""The key in the log for the columns that a commit has widened, as COLUMN=TYPE."""
COMPACTED = "compacted"
"""The key in the log for the dataset that a commit has compacted."""
STRAY_DAYS = 7.0
"""Age at which an orphaned file without an epoch is deleted. A younger one may belong to a compaction that has not
committed yet."""


@dataclass(frozen=True)
class VacuumResult:
    """What was deleted, or would be: files and their bytes, and files of plans."""

    files: int = 0
    size: int = 0
    plans: int = 0


@dataclass(frozen=True)
class Commit:
    """One version of the table. `rows` and `failed` count the rows that it added; None if no run made it."""

    version: int
    at: datetime
    by: str
    what: str
    rows: int | None
    failed: int | None
    fingerprint: str | None


def vacuum(
    output: str, storage: Storage, *, older_than_days: float = STRAY_DAYS, dry_run: bool = False
) -> VacuumResult:
    """Delete files that no reader sees, plans of ended runs, and expired entries of the log.

    While a run works, files of its epoch stay. Otherwise claim the next epoch first, so that a run that only seems
    dead cannot commit a deleted file. Raises: TableError, StorageError.
    """
    space.read(output, storage)  # refuses a newer format, whose rules may differ
    table = Predictions.existing(output, storage)
    owner = table.owner()
    alive = owner is not None and heartbeat.is_alive(table.layout.run(owner).uri, storage)
    epoch = table.epoch
    if not alive and not dry_run:
        claimed = table.claim(f"vacuum-{uuid4().hex[:6]}", [], {"by": f"lakelens vacuum, {user_and_host()}"})
        if claimed is None:
            raise TableError(f"A run has just begun to write {table.uri}; try again.")
    ended = range(epoch if alive else epoch + 1)
    oldest = datetime.now(UTC) - timedelta(days=older_than_days)
    garbage = orphans.find(table, ended, strays_before=oldest)
    plans = _plans(table.layout, storage, owner if alive else None)
    labels = _unused_labels(output, storage, oldest)
    if not dry_run:
        unseen = [*(table.layout.fragment(file.path) for file in garbage), *(uri for uri, _ in labels)]
        storage.delete_all([*unseen, *plans])
        _forget_log(table)
    size = sum(file.size for file in garbage) + sum(size for _, size in labels)
    return VacuumResult(len(garbage) + len(labels), size, len(plans))


def _unused_labels(output: str, storage: Storage, oldest: datetime) -> list[tuple[str, int]]:
    """Return the URIs and sizes of files of labels that no reader sees, of all heads."""
    tables = [LabelTable.open(output, name, storage) for name in label_table.names(output, storage)]
    return [unused for table in tables if table is not None for unused in table.unused(oldest)]


def _plans(layout: Layout, storage: Storage, owner: str | None) -> list[str]:
    """Return the files of pending rows of all runs but the owner."""
    fs, root = storage.filesystem(layout.runs)
    try:
        found = fs.glob(f"{root}/*/{PENDING}/*.parquet") if fs.exists(root) else []
    except Exception as error:
        raise failure(error, layout.output) from error
    files = [path.split("/")[-3:] for path in found]
    return [join(layout.run(run_id).pending, name) for run_id, _, name in files if run_id != owner]


def _forget_log(table: Predictions) -> None:
    """Delete expired entries of the log, after a checkpoint that replaces them."""
    try:
        handle = table.newest()
        handle.create_checkpoint()
        handle.cleanup_metadata()
    except (DeltaError, OSError) as error:
        raise TableError(f"Cannot clean the log of {table.uri}: {first_line(error)}.") from error


def history(output: str, storage: Storage) -> list[Commit]:
    """Return every version that the log still has, the newest first. Raises: TableError."""
    table = Predictions.existing(output, storage)
    try:
        entries = table.newest().history()
    except (DeltaError, OSError) as error:
        raise TableError(f"Cannot read the log of {table.uri}: {first_line(error)}.") from error
    return [_commit(entry) for entry in entries]


def _commit(entry: dict[str, Any]) -> Commit:
    operation = str(entry.get("operation", ""))
    run_id, rows = entry.get("run_id"), entry.get("rows")
    what = operation.lower().replace("_", " ")
    if run_id is not None:
        what = "commit" if rows is not None else "claim" if entry.get("commit_id") else "columns"
    if WIDENED in entry:
        what = f"widen {entry[WIDENED]}"
    if COMPACTED in entry:
        what = "compact"
    return Commit(
        version=int(entry["version"]),
        at=datetime.fromtimestamp(entry.get("timestamp", 0) / 1000, UTC),
        by=str(run_id or entry.get("by") or entry.get("engineInfo") or "unknown"),
        what=what,
        rows=rows,
        failed=entry.get("failed"),
        fingerprint=entry.get("fingerprint"),
    )


def user_and_host() -> str:
    """Return user and machine, for the history."""
    with suppress(OSError, KeyError):
        return f"{getpass.getuser()} on {socket.gethostname()}"
    return socket.gethostname()
