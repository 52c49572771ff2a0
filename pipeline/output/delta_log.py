"""Entries of a Delta log: who wrote each, and which files it adds and removes. This module reads no Parquet."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from pipeline.output.layout import Layout
from pipeline.storage.filesystems import Storage

APPLICATION = "lakelens"
"""The Delta application transaction whose version is the epoch."""


@dataclass(frozen=True)
class LogEntry:
    """One commit. `epoch` is None for maintenance by other programs. Paths are relative to the table.

    `changes_data` is false for a compaction, which only moves rows to other files.
    """

    info: dict[str, Any]
    epoch: int | None
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changes_data: bool

    @property
    def run_id(self) -> str | None:
        """The run that made the commit; None if no run did."""
        return str(self.info["run_id"]) if "run_id" in self.info else None

    def successors(self) -> dict[str, tuple[str, ...]]:
        """Map each removed file to the added files in its folder: only these can hold its rows now."""
        return {
            path: tuple(other for other in self.added if _folder(other) == _folder(path)) for path in self.removed
        }


def read(layout: Layout, version: int, storage: Storage) -> LogEntry | None:
    """Read the entry of a version. Return None if it does not exist yet or has expired. Raises: StorageError."""
    data = storage.read(layout.log_entry(version))
    if data is None:
        return None
    actions = [json.loads(line) for line in data.splitlines() if line.strip()]
    added = [action["add"] for action in actions if "add" in action]
    removed = [action["remove"] for action in actions if "remove" in action]
    epochs = [a["txn"]["version"] for a in actions if a.get("txn", {}).get("appId") == APPLICATION]
    return LogEntry(
        info=next((action["commitInfo"] for action in actions if "commitInfo" in action), {}),
        epoch=max(epochs, default=None),
        added=tuple(unquote(file["path"]) for file in added),
        removed=tuple(unquote(file["path"]) for file in removed),
        changes_data=any(file["dataChange"] for file in (*added, *removed)),
    )


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
