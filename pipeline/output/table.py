"""The predictions table: a Delta log over Parquet files in Hive folders, and its epochs and commits.

Only a commit makes files visible, only one run's commits are accepted (the newest epoch's), and a commit
whose answer was lost is found again by its id. Workers write the files; this module never reads rows.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, Schema, TableFeatures, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError

from pipeline import schema
from pipeline.errors import MovedError, OvertakenError, StorageError, TableError, first_line
from pipeline.output import delta_log
from pipeline.output.actions import Change
from pipeline.output.delta_log import APPLICATION
from pipeline.output.fragment import Fragment
from pipeline.output.layout import Layout
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import absolute, delta_uri

COMMIT_ATTEMPTS = 6
"""Tries of one commit against a store that fails; the waits between them double from 0.5 s."""


@dataclass(frozen=True)
class VisibleFile:
    """A file that the log names: its path below the table, and its size in bytes.

    `rows` is None where the log does not count them, as after maintenance by others.
    """

    path: str
    dataset: str
    outcome: str
    rows: int | None
    size: int


class Predictions:
    """The table as of one version. It moves forward one version at a time, by its own commits."""

    def __init__(self, output: str, storage: Storage, handle: DeltaTable) -> None:
        self.layout = Layout(absolute(output))
        self.output, self.uri = self.layout.output, self.layout.predictions
        self.storage = storage
        self._handle = handle
        self._moves: dict[str, tuple[str, ...]] = {}

    @classmethod
    def open(cls, output: str, storage: Storage) -> "Predictions | None":
        """The newest version of an output's table; None if it has none. Raises: TableError."""
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
        """The newest version of an output's table. Raises: TableError, also if it has none."""
        table = cls.open(output, storage)
        if table is None:
            raise TableError(f"There are no predictions at {output}.")
        return table

    @classmethod
    def create(cls, output: str, storage: Storage, kept: Sequence[pa.Field]) -> "Predictions":
        """An output's table, made empty if there is none; a racing creator is no error. Raises: TableError."""
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
    def epoch(self) -> int:
        """The epoch of the newest run that claimed the table; 0 before the first."""
        return self._handle.transaction_version(APPLICATION) or 0

    def files(self) -> list[str]:
        """The URIs of the visible files."""
        return [self.layout.fragment(path) for path in paths(self._handle)]

    def paths(self) -> list[str]:
        """The visible files, relative to the table."""
        return paths(self._handle)

    def visible_files(self) -> list[VisibleFile]:
        """The visible files, as the log describes them."""
        actions = self._handle.get_add_actions(flatten=True)
        names = ("path", *(f"partition.{name}" for name in schema.PARTITIONS), "num_records", "size_bytes")
        columns = (actions[name].to_pylist() for name in names)
        return [VisibleFile(unquote(path), *facts) for path, *facts in zip(*columns, strict=True)]

    def is_newest(self) -> bool:
        """Whether the log has no later version. Raises: StorageError."""
        return delta_log.read(self.layout, self.version + 1, self.storage) is None

    def owner(self) -> str | None:
        """The run that claimed the newest epoch; None if none did, or so long ago that the log has forgotten it.

        Raises: StorageError.
        """
        for version in range(self.version, -1, -1):
            entry = delta_log.read(self.layout, version, self.storage)
            if entry is None:
                return None
            if entry.epoch is not None:
                return str(entry.info["run_id"]) if "run_id" in entry.info else None
        return None

    def holders(self, path: str) -> list[str]:
        """The visible files that the rows of a file are in, after all commits that this object has seen."""
        if path not in self._moves:
            return [path]
        return [holder for other in self._moves[path] for holder in self.holders(other)]

    def columns(self) -> pa.Schema:
        """All columns of the table, as of this version."""
        return pa.schema(self._handle.schema().to_arrow())

    def kept_columns(self) -> list[pa.Field]:
        """The columns that the table has beyond `schema.PREDICTIONS`."""
        return schema.kept(self.columns())

    def claim(self, run_id: str, kept: Sequence[pa.Field], facts: Mapping[str, str] | None = None) -> int | None:
        """Make this run the table's newest epoch; `facts` go into the log.

        The table gets the kept columns that it lacks, and those of `schema.PREDICTIONS` if an older version made
        it: the rows that it has are null there. None if the table moved since this version was read: then plan
        again. Raises: TableError.
        """
        missing = schema.missing(self.columns(), kept, self.uri)
        epoch = self.epoch + 1
        properties = {**(facts or {}), "run_id": run_id, "epoch": epoch, "commit_id": uuid4().hex}
        if not self._try(Change(), properties, epoch):
            if self.is_newest():
                raise TableError(f"Cannot commit to {self.uri}: the store refused.")
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
        """Make files visible, and put others in the place of visible ones, all of it or nothing.

        `replaced` has by its path below the table, for each file that is to go, the one with the rows that stay;
        the old files stay on disk, for those who read an older version. Raises: MovedError, and nothing is
        committed, if one of them is no longer visible; OvertakenError, TableError.
        """
        replaced = replaced or {}
        added = [*fragments, *(other for other in replaced.values() if other is not None)]
        self._land(Change(added, replaced), {"run_id": run_id} | _counts(fragments), epoch)
        self._moves |= {path: (other.path,) if other else () for path, other in replaced.items()}

    def change_types(
        self,
        rewritten: Mapping[str, Fragment],
        fields: Sequence[pa.Field],
        run_id: str,
        epoch: int,
        facts: Mapping[str, str],
    ) -> None:
        """Give columns other types, and put a rewritten file in the place of each visible one: all or nothing.

        `fields` are the columns that change; `facts` go into the log. Raises: MovedError, and nothing is
        committed, if other files than these are visible; OvertakenError, TableError.
        """
        new = {field.name: field.type for field in fields}
        columns = pa.schema([field.with_type(new.get(field.name, field.type)) for field in self.columns()])
        change = Change(list(rewritten.values()), rewritten, Schema.from_arrow(columns))
        self._require_fit(change)
        if pa.timestamp("us") in new.values():
            self._allow_timestamps(run_id)
        self._land(change, {**facts, "run_id": run_id}, epoch)

    def catch_up(self, epoch: int) -> None:
        """See what others committed. Raises: OvertakenError if another run has claimed the table, TableError."""
        try:
            self._catch_up(epoch, None)
            self._handle = self._reopened(self.version)
        except (DeltaError, OSError) as error:
            raise _table_error(self.uri, error) from error

    def removed(self) -> frozenset[str]:
        """The paths of files that were visible once, as far back as the log remembers. They never come back.

        Raises: TableError.
        """
        try:
            found = self.newest().vacuum(retention_hours=0, dry_run=True, enforce_retention_duration=False)
        except (DeltaError, OSError) as error:
            raise _table_error(self.uri, error) from error
        return frozenset(found)

    def newest(self) -> DeltaTable:
        """A handle of its own on the newest version. Raises: what delta-rs raises."""
        return self._reopened(None)

    def _reopened(self, version: int | None) -> DeltaTable:
        """The table at a version, or the newest, opened with the credentials of this moment."""
        return DeltaTable(
            delta_uri(self.uri), version=version, storage_options=self.storage.delta_options(self.uri)
        )

    def _land(self, change: Change, facts: Mapping[str, Any], epoch: int) -> None:
        """Commit a change, whatever the store does and maintenance does meanwhile. Raises: like `commit`."""
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
        raise TableError(f"Cannot commit to {self.uri}: the store failed {COMMIT_ATTEMPTS} times.")

    def _require_fit(self, change: Change) -> None:
        if not change.fits(paths(self._handle)):
            raise MovedError(f"The files of {self.uri} were changed by maintenance.")

    def _try(self, change: Change, facts: dict[str, Any], epoch: int) -> bool:
        """One attempt at the next version; False if it is not known to have landed."""
        properties = CommitProperties(
            custom_metadata=facts,
            max_commit_retries=0,  # a retry would silently rebase over another run's commit
            app_transactions=[Transaction(APPLICATION, epoch)],
        )
        try:
            change.commit(self._handle, properties)
            self._handle.load_as_version(self.version + 1)
        except (DeltaError, OSError):  # a conflict, or the store failed: the log tells whether it landed
            return False
        return True

    def _catch_up(self, epoch: int, commit_id: object) -> bool:
        """Read the versions after this one; True if the commit of this id is among them.

        Raises: OvertakenError if another run has claimed the table.
        """
        while (entry := delta_log.read(self.layout, self.version + 1, self.storage)) is not None:
            if entry.epoch is not None and entry.epoch > epoch:
                raise OvertakenError(
                    f"The run {entry.info.get('run_id')} has taken over {self.uri}; this run stops, and nothing "
                    "that it committed is lost."
                )
            self._handle.load_as_version(self.version + 1)
            if commit_id is not None and entry.info.get("commit_id") == commit_id:
                return True
            self._moves |= entry.successors()
        return False

    def _add_columns(self, missing: pa.Schema, run_id: str) -> None:
        """Widen the table: delta-rs would drop unknown columns from a commit without a word."""
        fields: list[Field] = list(Schema.from_arrow(missing).fields)
        properties = CommitProperties(custom_metadata={"run_id": run_id}, max_commit_retries=0)
        try:
            self._handle.alter.add_columns(fields, commit_properties=properties)
        except Exception as error:  # delta-rs raises the bare class for a schema that it cannot take
            raise _table_error(self.uri, error) from error

    def _allow_timestamps(self, run_id: str) -> None:
        """Let the table have timestamps without a time zone, which to Delta are a feature of their own.

        Raises: MovedError if the table moved meanwhile.
        """
        properties = CommitProperties(custom_metadata={"run_id": run_id}, max_commit_retries=0)
        feature = TableFeatures.TimestampWithoutTimezone
        try:
            self._handle.alter.add_feature(feature, True, commit_properties=properties)
        except (DeltaError, OSError) as error:
            raise MovedError(f"The table {self.uri} was changed by maintenance.") from error


def _counts(fragments: Sequence[Fragment]) -> dict[str, int]:
    failed = sum(fragment.rows for fragment in fragments if fragment.outcome == schema.FAILED)
    return {"rows": sum(fragment.rows for fragment in fragments), "failed": failed}


def paths(handle: DeltaTable, dataset: str | None = None) -> list[str]:
    """The visible files, all or a dataset's, relative to the table: dataset=…/outcome=…/name. What lies above it,
    delta-rs percent-encodes in its URIs; these last three components it does not."""
    chosen = None if dataset is None else [(schema.DATASET, "=", dataset)]
    return ["/".join(uri.rsplit("/", 3)[1:]) for uri in handle.file_uris(file_pruning_predicate=chosen)]


def _table_error(uri: str, error: BaseException) -> TableError:
    return TableError(f"Cannot use the table {uri}: {first_line(error)}.")
