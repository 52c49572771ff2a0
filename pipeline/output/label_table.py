"""The labels of one head: a Delta table beside the predictions, with one row for each ok row of a version of them.

A file of labels belongs to one file of predictions, and has its name with a suffix. So the two logs tell which
labels are missing or superseded. One commit brings the table from one version of the predictions to another.
"""

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote
from uuid import uuid4

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction
from pydantic import Field

from pipeline import schema
from pipeline.errors import TableError, first_line
from pipeline.output.documents import Document
from pipeline.output.layout import DELTA_LOG, Layout
from pipeline.storage.filesystems import Storage, modified
from pipeline.storage.uris import absolute, delta_uri, join

LABELS = pa.schema(
    [
        *(
            schema.PREDICTIONS.field(name)
            for name in (schema.IMAGE_ID, schema.DATASET, "label", "score", "labels")
        ),
        pa.field("source_version", pa.int64(), nullable=False),
        pa.field("head", pa.string(), nullable=False),
    ]
)
"""One row for each labelled image. `source_version` is the version of the predictions whose row was labelled, and
`head` the start of the head's hash."""
_STATE = "lakelens_labels"
"""The key of `LabelState` in the log."""


class DatasetState(Document):
    """What the labels of one dataset are.

    `version` is that of the predictions, `head` a hash. `where` is the condition of the rows that this head has
    labelled, if it has not labelled all.
    """

    version: int
    head: str
    top_k: int
    where: str | None = None


class LabelState(Document):
    """What a version of the table holds. `table_id` is that of the predictions."""

    table_id: str | None = None
    datasets: dict[str, DatasetState] = Field(default_factory=dict)


@dataclass(frozen=True)
class LabelCommit:
    """One relabelling: the table's version, when, the versions of the predictions and the hashes of the heads."""

    version: int
    at: datetime
    sources: tuple[int, ...]
    heads: tuple[str, ...]


@dataclass(frozen=True)
class LabelFile:
    """A file of labels: its path below the table, its dataset, rows, and size in bytes."""

    path: str
    dataset: str
    rows: int
    size: int

    @property
    def source(self) -> str:
        """The name of the file of predictions that it belongs to, without its ending."""
        return self.path.rsplit("/", 1)[-1].rpartition("-")[0]


def label_path(dataset: str, source: str, suffix: str) -> str:
    """Return the path of a file of labels below the table. `source` is the path of the file of predictions."""
    return f"{schema.DATASET}={quote(dataset, safe='')}/{source_name(source)}-{suffix}.parquet"


def source_name(source: str) -> str:
    """Return the name of a file of predictions, without its ending."""
    return source.rsplit("/", 1)[-1].removesuffix(".parquet")


class LabelTable:
    """The table at the version that was newest when it was opened."""

    def __init__(self, output: str, name: str, storage: Storage, handle: DeltaTable) -> None:
        self.output, self.name, self.storage = output, name, storage
        self.uri = Layout(output).labels(name)
        self._handle = handle

    @classmethod
    def open(cls, output: str, name: str, storage: Storage) -> "LabelTable | None":
        """Open the newest version. Return None if the head has no labels here. Raises: TableError."""
        output = absolute(output)
        uri = Layout(output).labels(name)
        try:
            handle = DeltaTable(delta_uri(uri), storage_options=storage.delta_options(uri))
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise _error(uri, error) from error
        return cls(output, name, storage, handle)

    @classmethod
    def create(cls, output: str, name: str, storage: Storage) -> "LabelTable":
        """Create an empty table unless there is one. Raises: TableError."""
        uri = Layout(absolute(output)).labels(name)
        try:
            DeltaTable.create(
                delta_uri(uri),
                schema=LABELS,
                partition_by=[schema.DATASET],
                mode="ignore",
                storage_options=storage.delta_options(uri),
            )
        except (DeltaError, OSError) as error:
            if cls.open(output, name, storage) is None:
                raise _error(uri, error) from error
        opened = cls.open(output, name, storage)
        assert opened is not None
        return opened

    @property
    def version(self) -> int:
        """The version of the log."""
        return int(self._handle.version())

    def files(self) -> list[LabelFile]:
        """Return the visible files, in the order of their paths."""
        actions = self._handle.get_add_actions(flatten=True)
        names = ("path", f"partition.{schema.DATASET}", "num_records", "size_bytes")
        rows = zip(*(actions[name].to_pylist() for name in names), strict=True)
        return sorted(
            (LabelFile(unquote(path), dataset, count or 0, size) for path, dataset, count, size in rows),
            key=lambda file: file.path,
        )

    def state(self) -> LabelState:
        """Return what the last relabelling has written. Raises: TableError."""
        try:
            entries = self._handle.history()
        except (DeltaError, OSError) as error:
            raise _error(self.uri, error) from error
        found = next((entry[_STATE] for entry in entries if _STATE in entry), None)
        return LabelState() if found is None else LabelState.model_validate_json(found)

    def commit(self, added: Sequence[LabelFile], removed: Collection[str], state: LabelState) -> bool:
        """Replace files, atomically. Return False if another commit came first; nothing has changed then.

        Raises: TableError if the store fails.
        """
        commit_id = uuid4().hex
        facts = {_STATE: state.model_dump_json(), "commit_id": commit_id}
        now = int(time.time() * 1000)
        removals = [RemoveAction(path, data_change=True, deletion_timestamp=now) for path in removed]
        try:
            self._handle.create_write_transaction(
                actions=[*(_add(file, now) for file in added), *removals],
                mode="append",
                schema=self._handle.schema(),
                partition_by=[schema.DATASET],
                # A retry would silently commit on top of another relabelling.
                commit_properties=CommitProperties(custom_metadata=facts, max_commit_retries=0),
                post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
            )
        except (DeltaError, OSError) as error:
            return self._landed(commit_id, error)
        return True

    def _landed(self, commit_id: str, error: BaseException) -> bool:
        """Tell whether a commit without an answer has landed. Raises: TableError if no commit has."""
        newest = LabelTable.open(self.output, self.name, self.storage)
        if newest is None or newest.version == self.version:
            raise _error(self.uri, error) from error
        entries: list[dict[str, Any]] = newest._handle.history(newest.version - self.version)
        return any(entry.get("commit_id") == commit_id for entry in entries)

    def unused(self, before: datetime) -> list[tuple[str, int]]:
        """Return the URIs and sizes of files that no reader of this version sees.

        A file that the log has never named may be of a relabelling that works. It counts only if it was written
        before a time. Raises: TableError, StorageError.
        """
        fs, root = self.storage.filesystem(self.uri)
        try:
            superseded = set(self._handle.vacuum(0, dry_run=True, enforce_retention_duration=False))
            infos = fs.find(root, detail=True)
        except (DeltaError, OSError) as error:
            raise _error(self.uri, error) from error
        named = {file.path for file in self.files()}
        found = {name.removeprefix(root).strip("/"): info for name, info in infos.items()}
        return [
            (join(self.uri, path), int(info.get("size") or 0))
            for path, info in found.items()
            if path.endswith(".parquet")
            and not path.startswith(f"{DELTA_LOG}/")
            and path not in named
            and (unquote(path) in superseded or path in superseded or _is_older(info, before))
        ]

    def history(self) -> list[LabelCommit]:
        """Return the relabellings that the log still has, the newest first. Raises: TableError."""
        try:
            entries = self._handle.history()
        except (DeltaError, OSError) as error:
            raise _error(self.uri, error) from error
        return [_commit(entry) for entry in entries if _STATE in entry]

    def rows(self) -> pa.Table:
        """Return all rows, with the columns `LABELS`. Raises: TableError."""
        try:
            return self._handle.to_pyarrow_dataset().to_table(columns=LABELS.names).cast(LABELS)
        except (DeltaError, OSError, pa.ArrowInvalid) as error:
            raise _error(self.uri, error) from error

    def uris(self) -> list[str]:
        """Return the URIs of the visible files."""
        return [join(self.uri, file.path) for file in self.files()]


def read(output: str, name: str, storage: Storage) -> pa.Table:
    """Return all labels of a head, with the columns `LABELS`. Raises: like `existing`."""
    return existing(output, name, storage).rows()


def existing(output: str, name: str, storage: Storage) -> LabelTable:
    """Open the labels of a head. Raises: TableError if it has none here, StorageError."""
    table = LabelTable.open(output, name, storage)
    if table is None:
        have = ", ".join(names(output, storage)) or "none"
        raise TableError(f"{output} has no labels of a head {name!r}; it has {have}. Run `lakelens relabel`.")
    return table


def names(output: str, storage: Storage) -> list[str]:
    """Return the names of the heads that have labels here, in alphabetical order. Raises: StorageError."""
    uri = Layout(absolute(output)).labels("").rstrip("/")
    fs, root = storage.filesystem(uri)
    if not fs.exists(root):
        return []
    return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in fs.ls(root, detail=False))


def _add(file: LabelFile, now: int) -> AddAction:
    return AddAction(
        path=file.path,
        size=file.size,
        partition_values={schema.DATASET: file.dataset},
        modification_time=now,
        data_change=True,
        stats=json.dumps({"numRecords": file.rows}),
    )


def _commit(entry: dict[str, Any]) -> LabelCommit:
    datasets = LabelState.model_validate_json(entry[_STATE]).datasets.values()
    return LabelCommit(
        version=int(entry["version"]),
        at=datetime.fromtimestamp(entry.get("timestamp", 0) / 1000, UTC),
        sources=tuple(sorted({dataset.version for dataset in datasets})),
        heads=tuple(sorted({dataset.head for dataset in datasets})),
    )


def _is_older(info: dict[str, Any], before: datetime) -> bool:
    written = modified(info)
    return written is not None and written < before


def _error(uri: str, error: BaseException) -> TableError:
    return TableError(f"Cannot use the table {uri}: {first_line(error)}.")
