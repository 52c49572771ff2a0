"""The predictions table: a Delta log over Parquet files in Hive folders, and its epochs and commits.

Only a commit makes files visible, only one run's commits are accepted (the newest epoch's), and a commit
whose answer was lost is found again by its id. Workers write the files; this module never reads rows.
"""

import dataclasses
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, Schema, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from pipeline import schema
from pipeline.errors import OvertakenError, StorageError, TableError
from pipeline.storage import Storage, absolute, delta_uri, failure, join

FOLDER = "predictions"
APPLICATION = "lakelens"
"""The Delta application transaction whose version is the epoch."""
COMMIT_ATTEMPTS = 6
"""Tries of one commit against a store that fails; the waits between them double from 0.5 s."""

_EPOCH = re.compile(r"^\.?(\d+)-[0-9a-f]{32}\.parquet(\.[0-9a-f]{32}\.tmp)?$")
"""A fragment, or the scratch file of one whose writer was killed."""


@dataclass(frozen=True)
class Fragment:
    """One Parquet output file that is written but not visible. `path` is relative to the table.

    `examples` are a few of its failed rows, as "uri: code"; `refused` counts those that speak of the store and not
    of the image. `replaces` names rows of visible files, by their numbers, whose place its rows take.
    """

    path: str
    dataset: str
    outcome: str
    rows: int
    size: int
    examples: tuple[str, ...] = ()
    refused: int = 0
    replaces: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)


def fragment_path(dataset: str, outcome: str, epoch: int) -> str:
    """A path that no other attempt has, below the table, with the dataset's name percent-encoded."""
    folder = f"{schema.DATASET}={quote(dataset, safe='')}/{schema.OUTCOME}={outcome}"
    return f"{folder}/{epoch}-{uuid4().hex}.parquet"


class Predictions:
    """The table as of one version. It moves forward one version at a time, by its own commits."""

    def __init__(self, output: str, storage: Storage, handle: DeltaTable) -> None:
        self._uri = join(absolute(output), FOLDER)
        self._storage = storage
        self._handle = handle

    @classmethod
    def open(cls, output: str, storage: Storage) -> "Predictions | None":
        """The newest version of an output's table; None if it has none. Raises: TableError."""
        uri = join(absolute(output), FOLDER)
        try:
            handle = DeltaTable(delta_uri(uri), storage_options=storage.delta_options(uri))
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise _table_error(uri, error) from error
        return cls(output, storage, handle)

    @classmethod
    def create(cls, output: str, storage: Storage, kept: Sequence[pa.Field]) -> "Predictions":
        """An output's table, made empty if there is none; a racing creator is no error. Raises: TableError."""
        uri = join(absolute(output), FOLDER)
        try:
            handle = DeltaTable.create(
                delta_uri(uri),
                schema=schema.predictions(kept),
                partition_by=list(schema.PARTITIONS),
                mode="ignore",
                storage_options=storage.delta_options(uri),
            )
        except Exception as error:  # delta-rs raises the bare class for a schema that it cannot take
            existing = cls.open(output, storage)
            if existing is None:
                raise _table_error(uri, error) from error
            return existing
        return cls(output, storage, handle)

    @property
    def version(self) -> int:
        """The version of the log that this object has seen."""
        return int(self._handle.version())

    @property
    def epoch(self) -> int:
        """The epoch of the newest run that claimed the table; 0 before the first."""
        return self._handle.transaction_version(APPLICATION) or 0

    def files(self) -> list[str]:
        """The URIs of the visible files."""
        return [join(self._uri, path) for path in _paths(self._handle)]

    def kept_columns(self) -> list[pa.Field]:
        """The columns that the table has beyond `schema.PREDICTIONS`."""
        fields = pa.schema(self._handle.schema().to_arrow())
        return [field for field in fields if field.name not in schema.PREDICTIONS.names]

    def claim(self, run_id: str, kept: Sequence[pa.Field]) -> int | None:
        """Make this run the table's newest epoch and give the table its kept columns.

        None if the table moved since this version was read: then plan again. Raises: TableError.
        """
        missing = self._missing_columns(kept)
        epoch = self.epoch + 1
        if not self._try([], {"run_id": run_id, "epoch": epoch, "commit_id": uuid4().hex}, epoch):
            if self._entry(self.version + 1) is None:
                raise TableError(f"Cannot commit to {self._uri}: the store refused.")
            return None
        if len(missing):
            self._add_columns(missing, run_id)
        return epoch

    def commit(self, fragments: Sequence[Fragment], run_id: str, epoch: int, removed: Sequence[str] = ()) -> None:
        """Make files visible and others invisible, all of it or nothing. Raises: OvertakenError, TableError.

        `removed` are paths below the table; the files stay on disk, for those who read an older version.
        """
        properties = {"run_id": run_id, "epoch": epoch, "commit_id": uuid4().hex}
        for attempt in range(COMMIT_ATTEMPTS):
            if attempt:
                time.sleep(0.5 * 2 ** (attempt - 1))
            try:
                if self._try(fragments, properties, epoch, removed) or self._catch_up(properties):
                    return
                self._handle = self._reopened(self.version)
                if not set(removed) <= set(_paths(self._handle)):
                    raise TableError(f"The files of {self._uri} were changed by maintenance; run again.")
            except (StorageError, DeltaError, OSError):
                continue
        raise TableError(f"Cannot commit to {self._uri}: the store failed {COMMIT_ATTEMPTS} times.")

    def remove_orphans(self, epochs: range) -> int:
        """Delete files of these epochs that the newest log does not name; returns how many.

        Call it only for epochs whose writers have stopped or can no longer commit. Raises: StorageError,
        TableError.
        """
        fs, root = self._storage.filesystem(self._uri)
        try:
            named = set(_paths(self._reopened(None)))
            found = {path.removeprefix(root).strip("/"): path for path in fs.find(root)}
        except Exception as error:
            raise failure(error, self._uri) from error
        if not named <= found.keys():
            missing = min(named - found.keys())
            raise TableError(f"The table {self._uri} names {missing}, which is not there; nothing was deleted.")
        orphans = [path for name, path in found.items() if name not in named and _epoch_of(path) in epochs]
        try:
            if orphans:
                fs.rm(orphans)
        except Exception as error:
            raise failure(error, self._uri) from error
        return len(orphans)

    def _reopened(self, version: int | None) -> DeltaTable:
        """The table at a version, or the newest, opened with the credentials of this moment."""
        return DeltaTable(
            delta_uri(self._uri), version=version, storage_options=self._storage.delta_options(self._uri)
        )

    def _try(
        self,
        fragments: Iterable[Fragment],
        properties: dict[str, Any],
        epoch: int,
        removed: Iterable[str] = (),
    ) -> bool:
        """One attempt at the next version; False if it is not known to have landed."""
        try:
            self._handle.create_write_transaction(
                actions=[*map(_add_action, fragments), *map(_remove_action, removed)],
                mode="append",
                schema=self._handle.schema(),
                partition_by=list(schema.PARTITIONS),
                commit_properties=CommitProperties(
                    custom_metadata=properties,
                    max_commit_retries=0,  # a retry would silently rebase over another run's commit
                    app_transactions=[Transaction(APPLICATION, epoch)],
                ),
                post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
            )
            self._handle.load_as_version(self.version + 1)
        except (DeltaError, OSError):  # a conflict, or the store failed: the log tells whether it landed
            return False
        return True

    def _catch_up(self, properties: dict[str, Any]) -> bool:
        """Read the versions after this one; True if this very commit is among them.

        Raises: OvertakenError if another run has claimed the table.
        """
        while (entry := self._entry(self.version + 1)) is not None:
            actions = [json.loads(line) for line in entry.splitlines() if line.strip()]
            info: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
            claimed = [a["txn"]["version"] for a in actions if a.get("txn", {}).get("appId") == APPLICATION]
            if any(epoch > properties["epoch"] for epoch in claimed):
                raise OvertakenError(
                    f"The run {info.get('run_id')} has taken over {self._uri}; this run stops, and nothing "
                    "that it committed is lost."
                )
            self._handle.load_as_version(self.version + 1)
            if info.get("commit_id") == properties["commit_id"]:
                return True
        return False

    def _entry(self, version: int) -> bytes | None:
        """A version's entry in the log. Raises: StorageError."""
        return self._storage.read(join(self._uri, "_delta_log", f"{version:020}.json"))

    def _missing_columns(self, kept: Sequence[pa.Field]) -> pa.Schema:
        """The kept columns that the table lacks. Raises: TableError for one of another type."""
        have = {field.name.casefold(): field for field in self.kept_columns()}
        for field in kept:
            held = have.get(field.name.casefold(), field)
            if (held.name, held.type) != (field.name, field.type):
                raise TableError(
                    f"The kept column {field.name!r} is {field.type} in the manifest, but {self._uri} has "
                    f"{held.name!r} as {held.type}; rename it in the manifest, or choose another output.path."
                )
        return pa.schema([field for field in kept if field.name.casefold() not in have])

    def _add_columns(self, missing: pa.Schema, run_id: str) -> None:
        """Widen the table: delta-rs would drop unknown columns from a commit without a word."""
        fields: list[Field] = list(Schema.from_arrow(missing).fields)
        properties = CommitProperties(custom_metadata={"run_id": run_id}, max_commit_retries=0)
        try:
            self._handle.alter.add_columns(fields, commit_properties=properties)
        except Exception as error:  # delta-rs raises the bare class for a schema that it cannot take
            raise _table_error(self._uri, error) from error


def _paths(handle: DeltaTable) -> list[str]:
    """The visible files relative to the table: dataset=…/outcome=…/name. What lies above it, delta-rs
    percent-encodes in its URIs; these last three components it does not."""
    return ["/".join(uri.rsplit("/", 3)[1:]) for uri in handle.file_uris()]


def _add_action(fragment: Fragment) -> AddAction:
    return AddAction(
        path=fragment.path,
        size=fragment.size,
        partition_values={schema.DATASET: fragment.dataset, schema.OUTCOME: fragment.outcome},
        modification_time=int(time.time() * 1000),
        data_change=True,
        stats=json.dumps({"numRecords": fragment.rows}),
    )


def _remove_action(path: str) -> RemoveAction:
    return RemoveAction(path, data_change=True, deletion_timestamp=int(time.time() * 1000))


def _epoch_of(path: str) -> int | None:
    """The epoch in a fragment's name; None for files that no run wrote."""
    found = _EPOCH.match(path.rsplit("/", 1)[-1])
    return int(found[1]) if found else None


def _table_error(uri: str, error: BaseException) -> TableError:
    first = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()[0]
    return TableError(f"Cannot use the table {uri}: {first}.")
