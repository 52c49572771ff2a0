"""Lance, the format of the index: every use of it. It does not know what the rows mean.

A change is staged first: a *detached* version, which only its number leads to. So everything slow, such as an ANN
index, is done before a reader sees anything. Then the same change becomes the next version.

Two writers cannot both commit on top of one version. An overwrite without retries has to be the next version. An
update names the first fragment, and Lance refuses it if another commit has touched this fragment.
"""

import importlib
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pyarrow as pa

from pipeline.errors import BusyError, ConfigError, LakeLensError, TableError, first_line
from pipeline.search.index_state import IndexState, parsed_state
from pipeline.storage.filesystems import Storage, failure
from pipeline.storage.uris import is_s3, split, without_queries

KEPT = timedelta(days=1)
"""How long a version that is no longer the newest can be read. A reader has this time to finish."""
FRAGMENT_ROWS = 262_144
"""Rows of one file of the index: 400 MB of 768-dimensional vectors. One worker indexes whole files."""
EARLIER = 8
"""Versions before the newest that are asked for their state, in case another program has made newer ones."""
_STATE = "lakelens.index"
_STAGED = re.compile(r"d\d+\.manifest")


def library(module: str = "lance.dataset") -> Any:
    """Import a module of Lance. Raises: ConfigError if Lance is not installed."""
    os.environ.setdefault("LANCE_LOG", "error")  # its warnings are for programmers; errors are raised as well
    # Ray and our decoders fork and start another program at once, which is safe.
    warnings.filterwarnings("ignore", "lance is not fork-safe", UserWarning)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            "The index needs Lance, which is not installed: pip install 'lakelens[search]'."
        ) from error


@dataclass(frozen=True)
class Segment:
    """A part of an index to build: the index of `column`, for some fragments, with Lance's options."""

    column: str
    kind: str
    fragments: tuple[int, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class IndexFolder:
    """The folder of an index. Picklable, so that workers write to it. Datasets are Lance's."""

    uri: str
    storage: Storage

    def open(self, version: int | None = None) -> Any | None:
        """Open a version, by default the newest. Return None if there is no index. Raises: TableError."""
        try:
            return library().LanceDataset(self._place, version, storage_options=self._options)
        except ValueError as error:
            if "was not found" in str(error):
                return None
            raise self._error(error) from error
        except OSError as error:
            raise self._error(error) from error

    def write(self, rows: pa.RecordBatchReader, *, anew: bool) -> list[Any]:
        """Write rows as fragments that no version names yet. `anew`: they replace all rows of the index.

        Raises: TableError.
        """
        with self._streamed(rows) as stream:
            written: list[Any] = library("lance.fragment").write_fragments(
                stream,
                self._place,
                rows.schema,
                mode="overwrite" if anew else "append",
                max_rows_per_file=FRAGMENT_ROWS,
                storage_options=self._options,
            )
        return written

    def build(self, version: int, segment: Segment) -> Any:
        """Build a segment on a version, and return Lance's description of it. Raises: TableError."""
        dataset = self.open(version)
        if dataset is None:
            raise TableError(f"The version {version} of {self.uri} is gone; run again.")
        with self.errors():
            return dataset.create_index_uncommitted(
                segment.column,
                segment.kind,
                name=segment.column,
                replace=True,
                fragment_ids=list(segment.fragments),
                **segment.options,
            )

    def update(self, dataset: Any, ids: pa.RecordBatchReader, fragments: Sequence[Any]) -> Any:
        """Return the operation that deletes the rows with these ids, and adds those of the fragments.

        `ids` has one column, the one that tells rows apart. The index must have rows. Raises: TableError.
        """
        merge = dataset.merge_insert(ids.schema.names[0]).when_matched_delete()
        with self._streamed(ids) as stream:
            deleted = merge.execute_uncommitted(stream)[0].operation
        updated, removed = list(deleted.updated_fragments), deleted.removed_fragment_ids
        first = dataset.get_fragments()[0].metadata
        if first.id not in {*removed, *(one.id for one in updated)}:
            updated.append(first)  # as it is: all updates of a version touch it, so that only one passes
        return library().LanceOperation.Update(removed, updated, list(fragments))

    def create(self, schema: pa.Schema) -> Any:
        """Create an index without rows. Raises: BusyError if another program is faster, TableError."""
        return self._commit(self._place, library().LanceOperation.Overwrite(schema, []), 0, {})

    def stage(self, base: Any, operation: Any) -> Any:
        """Apply an operation to a version, and return a version that only its number leads to."""
        with self.errors():
            return library().LanceDataset.commit(
                base, operation, base.version, storage_options=self._options, detached=True
            )

    def commit(self, base: Any, operation: Any, state: IndexState) -> Any:
        """Make an operation the next version. Raises: BusyError if another program is faster, TableError."""
        if base.latest_version != base.version:
            raise self._busy()
        dataset = self._commit(base, operation, base.version, {_STATE: state.model_dump_json()})
        if dataset.version != base.version + 1:
            raise self._busy()
        return dataset

    def _commit(self, base: Any, operation: Any, version: int, properties: dict[str, str]) -> Any:
        transaction = library().Transaction(version, operation, transaction_properties=properties)
        try:
            with self.errors():
                return library().LanceDataset.commit(
                    base, transaction, max_retries=0, storage_options=self._options
                )
        except TableError as error:
            newest = self.open()
            if newest is None or newest.version == version:
                raise
            if not _made_by(newest, transaction.uuid):
                raise self._busy() from error
            return newest  # the commit has landed without an answer

    def clean_up(self, dataset: Any, *, alone: bool) -> None:
        """Delete versions older than `KEPT`, and staged ones.

        `alone`: no other writer can commit any more, so that files which no version names are deleted, too.
        Raises: TableError, StorageError.
        """
        with self.errors():
            dataset.cleanup_old_versions(KEPT, delete_unverified=alone, error_if_tagged_old_versions=False)
        fs, root = self.storage.filesystem(f"{self.uri}/_versions")
        try:
            names = [path.rsplit("/", 1)[-1] for path in fs.find(root)]
        except Exception as error:
            raise failure(error, self.uri) from error
        self.storage.delete_all(f"{self.uri}/_versions/{name}" for name in names if _STAGED.fullmatch(name))

    @property
    def _place(self) -> str:
        """The URI as Lance takes it, which knows S3 by one scheme only."""
        return f"s3://{'/'.join(split(self.uri))}" if is_s3(self.uri) else self.uri

    @property
    def _options(self) -> dict[str, str]:
        return self.storage.delta_options(self.uri)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate what Lance raises. Raises: BusyError if another program is faster, TableError."""
        conflict = library("lance.commit").CommitConflictError
        try:
            yield
        except conflict as error:
            raise self._busy() from error
        except (OSError, ValueError, RuntimeError) as error:  # what Lance's Rust code raises
            raise self._error(error) from error

    @contextmanager
    def _streamed(self, rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatchReader]:
        """Let Lance read rows. If reading them fails, raise that error, which Lance passes on as text only."""
        raised = list[LakeLensError]()

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                yield from rows
            except LakeLensError as error:
                raised.append(error)
                raise

        try:
            with self.errors():
                yield pa.RecordBatchReader.from_batches(rows.schema, batches())
        except TableError:
            if raised:
                raise raised[0] from None
            raise

    def _busy(self) -> BusyError:
        return BusyError(
            f"Another program has changed {self.uri} meanwhile, so this change was not made. Run again."
        )

    def _error(self, error: BaseException) -> TableError:
        reason = re.sub(r", /\S+\.rs:\d+:\d+", "", without_queries(first_line(error)))
        return TableError(f"Cannot use the index {self.uri}: {reason}.")


def state_of(dataset: Any) -> tuple[IndexState, int] | None:
    """Return the newest state, and the version that has it; None if the last versions have none."""
    for version in range(dataset.version, max(0, dataset.version - EARLIER), -1):
        found: IndexState | None = None
        with suppress(OSError, ValueError):  # the version was cleaned up
            transaction = dataset.read_transaction(version)
            text = (transaction.transaction_properties or {}).get(_STATE) if transaction else None
            found = parsed_state(text) if text else None
        if found and found.holds_at(version):
            return found, version
    return None


def overwrite(schema: pa.Schema, fragments: Sequence[Any]) -> Any:
    """Return the operation that replaces all rows."""
    return library().LanceOperation.Overwrite(schema, list(fragments))


def index_segments(dataset: Any, column: str) -> list[Any]:
    """Return the segments of the index of a column, as `create_index` needs them to remove them."""
    return [
        library().Index(
            one.uuid,
            index.name,
            list(index.fields),
            one.dataset_version_at_last_update,
            one.fragment_ids,
            one.index_version,
        )
        for index in dataset.describe_indices()
        if index.name == column
        for one in index.segments
    ]


def create_index(dataset: Any, added: Sequence[Any], removed: Sequence[Any]) -> Any:
    """Return the operation that adds and removes segments of indexes."""
    at = [replace(segment, dataset_version=dataset.version) for segment in added]
    return library().LanceOperation.CreateIndex(at, list(removed))


def trained_centroids(dataset: Any, column: str, partitions: int, sample: int, iterations: int) -> Any:
    """Cluster a sample of the vectors, `sample` a partition, and return the centres of the partitions."""
    builder = library("lance.indices").IndicesBuilder(dataset, column)
    return builder.train_ivf(
        partitions, distance_type="cosine", sample_rate=sample, max_iters=iterations
    ).centroids


def centroids(dataset: Any, column: str) -> Any:
    """Return the centres of the partitions of the index of a column."""
    return dataset.get_ivf_model(column).centroids


def rotation(dimension: int, bits: int) -> str:
    """Return a new rotation for IVF_RQ, as JSON. Segments with the same one can be searched as one index."""
    return str(library("lance.lance").indices.build_rq_model(dimension=dimension, num_bits=bits))


def _made_by(dataset: Any, uuid: str) -> bool:
    made = dataset.read_transaction(dataset.version)
    return made is not None and made.uuid == uuid
