"""The predictions table: a Delta log over Parquet files in Hive folders, its epochs and its commits.

Only a commit makes files visible. The table accepts commits only from the run with the newest epoch. If the answer
to a commit is lost, its id in the log tells that it landed. Workers write the files; this module never reads rows.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, Schema, TableFeatures, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError

from pipeline import schema
from pipeline.errors import MovedError, OvertakenError, StorageError, TableError, first_line
from pipeline.output import delta_log
from pipeline.output.actions import Change
from pipeline.output.delta_log import APPLICATION
from pipeline.output.fragment import Fragment, row_counts
from pipeline.output.layout import Layout
from pipeline.output.visible_files import VisibleFile, paths, visible_files
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import absolute, delta_uri

COMMIT_ATTEMPTS = 6
"""Attempts at one commit while the store fails. The waits between them double, from 0.5 s."""


class Predictions:
    """The table at one version. Its own commits move it forward, one version at a time."""

    def __init__(self, output: str, storage: Storage, handle: DeltaTable) -> None:
        self.layout = Layout(absolute(output))
        self.output, self.uri = self.layout.output, self.layout.predictions
        self.storage = storage
        self._handle = handle
        self._moves: dict[str, tuple[str, ...]] = {}

    @classmethod
    def open(cls, output: str, storage: Storage) -> "Predictions | None":
        """Open the newest version of an output's table. Return None if it has none. Raises: TableError."""
        uri = Layout(absolute(output)).predictions
        try:
            handle = DeltaTable(delta_uri(uri), storage_options=storage.delta_options(uri))
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise _table_error(uri, error) from error
        return cls(output, storage, handle)

    @classmethod
    def existing(cls, output: str, storage: Storage) -> "Predictions":
        """Open the newest version of an output's table. Raises: TableError, also if it has none."""
        table = cls.open(output, storage)
        if table is None:
            raise TableError(f"There are no predictions at {output}.")
        return table

    @classmethod
    def create(cls, output: str, storage: Storage, kept: Sequence[pa.Field]) -> "Predictions":
        """Create an empty table unless there is one; another run may create it at the same time.

        Raises: TableError.
        """
        uri = Layout(absolute(output)).predictions
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
    def table_id(self) -> str:
        """The id that the table got when it was created: an output that was deleted and made again has another."""
        return str(self._handle.metadata().id)

    @property
    def epoch(self) -> int:
        """The epoch of the newest run that claimed the table; 0 before the first."""
        return self._handle.transaction_version(APPLICATION) or 0

    def files(self) -> list[str]:
        """Return the URIs of the visible files."""
        return [self.layout.fragment(path) for path in paths(self._handle)]

    def paths(self) -> list[str]:
        """Return the paths of the visible files, below the table."""
        return paths(self._handle)

    def visible_files(self) -> list[VisibleFile]:
        """Return the visible files as the log describes them."""
        return visible_files(self._handle)

    def is_newest(self) -> bool:
        """Tell whether the log has no later version. Raises: StorageError."""
        return delta_log.read(self.layout, self.version + 1, self.storage) is None

    def owner(self) -> str | None:
        """Return the id of the run that claimed the newest epoch.

        Return None if there is none, or if its entry in the log has expired. Raises: StorageError.
        """
        for version in range(self.version, -1, -1):
            entry = delta_log.read(self.layout, version, self.storage)
            if entry is None or entry.epoch is not None:
                return entry.run_id if entry else None
        return None

    def holders(self, path: str) -> list[str]:
        """Return the visible files that hold the rows of a file now, after the commits seen so far."""
        if path not in self._moves:
            return [path]
        return [holder for other in self._moves[path] for holder in self.holders(other)]

    def columns(self) -> pa.Schema:
        """Return all columns of the table at this version."""
        return pa.schema(self._handle.schema().to_arrow())

    def claim(self, run_id: str, kept: Sequence[pa.Field], facts: Mapping[str, str] | None = None) -> int | None:
        """Claim the next epoch for this run, write `facts` to the log, and return the epoch.

        Add the kept columns that the table lacks, and those of `schema.PREDICTIONS` if an older LakeLens made the
        table. Older rows are null in these columns. Return None if the table has moved since this version was
        read: the caller then plans again. Raises: TableError.
        """
        missing = schema.columns_to_add(self.columns(), kept, self.uri)
        epoch = self.epoch + 1
        properties = {**(facts or {}), "run_id": run_id, "epoch": epoch, "commit_id": uuid4().hex}
        if not self._try(Change(), properties, epoch):
            if self.is_newest():
                raise TableError(f"Cannot commit to {self.uri}: the store refused; check its permissions.")
            return None
        if len(missing):
            self._add_columns(missing, run_id)
        return epoch

    def commit(
        self,
        fragments: Sequence[Fragment],
        run_id: str,
        epoch: int,
        replaced: Mapping[str, Fragment | None] | None = None,
    ) -> None:
        """Make files visible and replace visible ones, atomically.

        `replaced` maps the path of each file to remove to the file with its remaining rows, or to None. Removed
        files stay in the store for readers of older versions. Raises: MovedError, with nothing committed, if one
        of the files to remove is no longer visible; OvertakenError, TableError.
        """
        replaced = replaced or {}
        added = [*fragments, *(other for other in replaced.values() if other is not None)]
        self._land(Change(added, replaced), {"run_id": run_id} | row_counts(fragments), epoch)
        self._moves |= {path: (other.path,) if other else () for path, other in replaced.items()}

    def change_types(
        self,
        rewritten: Mapping[str, Fragment],
        fields: Sequence[pa.Field],
        run_id: str,
        epoch: int,
        facts: Mapping[str, str],
    ) -> None:
        """Give columns other types and replace every visible file by a rewritten one, atomically.

        `fields` are the columns that change; `facts` go into the log. Raises: MovedError, with nothing committed,
        if other files than these are visible; OvertakenError, TableError.
        """
        new = {field.name: field.type for field in fields}
        columns = pa.schema([field.with_type(new.get(field.name, field.type)) for field in self.columns()])
        change = Change(list(rewritten.values()), rewritten, Schema.from_arrow(columns))
        self._require_fit(change)
        if pa.timestamp("us") in new.values():
            self._allow_timestamps(run_id)
        self._land(change, {**facts, "run_id": run_id}, epoch)

    def catch_up(self, epoch: int) -> None:
        """Move to the newest version. Raises: OvertakenError if another run has claimed the table, TableError."""
        try:
            self._catch_up(epoch, None)
            self._handle = self._reopened(self.version)
        except (DeltaError, OSError) as error:
            raise _table_error(self.uri, error) from error

    def removed(self) -> frozenset[str]:
        """Return the paths of files that are no longer visible, as far back as the log goes. They never come back.

        Raises: TableError.
        """
        try:
            found = self.newest().vacuum(retention_hours=0, dry_run=True, enforce_retention_duration=False)
        except (DeltaError, OSError) as error:
            raise _table_error(self.uri, error) from error
        return frozenset(found)

    def newest(self) -> DeltaTable:
        """Return a new handle on the newest version. Raises: what delta-rs raises."""
        return self._reopened(None)

    def _reopened(self, version: int | None) -> DeltaTable:
        """Open the table at a version, by default the newest, with the current credentials."""
        return DeltaTable(
            delta_uri(self.uri), version=version, storage_options=self.storage.delta_options(self.uri)
        )

    def _land(self, change: Change, facts: Mapping[str, Any], epoch: int) -> None:
        """Commit a change, with retries if the store fails or maintenance commits first. Raises: like `commit`."""
        properties = {**facts, "epoch": epoch, "commit_id": uuid4().hex}
        for attempt in range(COMMIT_ATTEMPTS):
            if attempt:
                time.sleep(0.5 * 2 ** (attempt - 1))
            try:
                if self._try(change, properties, epoch) or self._catch_up(epoch, properties["commit_id"]):
                    return
                self._handle = self._reopened(self.version)
            except (StorageError, DeltaError, OSError):
                continue
            self._require_fit(change)
        raise TableError(
            f"Cannot commit to {self.uri}: the store failed {COMMIT_ATTEMPTS} times. "
            "Run again when it works: the next run resumes where this one stopped."
        )

    def _require_fit(self, change: Change) -> None:
        if not change.fits(paths(self._handle)):
            raise MovedError(f"Maintenance has replaced files of {self.uri} meanwhile; run again.")

    def _try(self, change: Change, facts: dict[str, Any], epoch: int) -> bool:
        """Attempt to commit the next version. Return False unless the commit is known to have landed."""
        properties = CommitProperties(
            custom_metadata=facts,
            max_commit_retries=0,  # a retry would silently rebase over another run's commit
            app_transactions=[Transaction(APPLICATION, epoch)],
        )
        try:
            change.commit(self._handle, properties)
            self._handle.load_as_version(self.version + 1)
        except (DeltaError, OSError):  # a conflict or a failing store; the log tells whether the commit landed
            return False
        return True

    def _catch_up(self, epoch: int, commit_id: object) -> bool:
        """Read the versions after this one. Return True if the commit with this id is among them.

        Raises: OvertakenError if another run has claimed the table.
        """
        while (entry := delta_log.read(self.layout, self.version + 1, self.storage)) is not None:
            if entry.epoch is not None and entry.epoch > epoch:
                raise OvertakenError(
                    f"The run {entry.info.get('run_id')} has taken over {self.uri}, so this run stops. "
                    "What it has committed is kept."
                )
            self._handle.load_as_version(self.version + 1)
            if commit_id is not None and entry.info.get("commit_id") == commit_id:
                return True
            self._moves |= entry.successors()
        return False

    def _add_columns(self, missing: pa.Schema, run_id: str) -> None:
        """Add columns to the table. Otherwise delta-rs silently drops them from a commit."""
        fields: list[Field] = list(Schema.from_arrow(missing).fields)
        properties = CommitProperties(custom_metadata={"run_id": run_id}, max_commit_retries=0)
        try:
            self._handle.alter.add_columns(fields, commit_properties=properties)
        except Exception as error:  # delta-rs raises the bare class for a schema that it cannot take
            raise _table_error(self.uri, error) from error

    def _allow_timestamps(self, run_id: str) -> None:
        """Enable timestamps without a time zone, which are an optional feature of Delta tables.

        Raises: MovedError if the table moved meanwhile, otherwise TableError; StorageError.
        """
        properties = CommitProperties(custom_metadata={"run_id": run_id}, max_commit_retries=0)
        feature = TableFeatures.TimestampWithoutTimezone
        try:
            self._handle.alter.add_feature(feature, True, commit_properties=properties)
        except (DeltaError, OSError) as error:
            if self.is_newest():
                raise _table_error(self.uri, error) from error
            raise MovedError(f"Maintenance has changed {self.uri} meanwhile; run again.") from error


def _table_error(uri: str, error: BaseException) -> TableError:
    return TableError(f"Cannot use the table {uri}: {first_line(error)}.")
