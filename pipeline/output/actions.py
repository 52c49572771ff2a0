"""One commit to the predictions table, as actions of delta-rs."""

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Schema
from deltalake.transaction import AddAction, RemoveAction

from pipeline import schema
from pipeline.output.fragment import Fragment


@dataclass(frozen=True)
class Change:
    """Files to add, and paths below the table of the files to remove.

    With `columns` the commit also changes the table's columns, and must remove every visible file: delta-rs writes
    a schema only in the mode overwrite, which removes all files that its handle sees. In the mode append it
    silently leaves a new schema out.
    """

    added: Sequence[Fragment] = ()
    removed: Collection[str] = ()
    columns: Schema | None = None

    def fits(self, visible: Collection[str]) -> bool:
        """Tell whether the change applies to a table with these visible files."""
        return set(self.removed) <= set(visible) if self.columns is None else set(self.removed) == set(visible)

    def commit(self, handle: DeltaTable, properties: CommitProperties) -> None:
        """Try to commit it as the next version of the handle. Raises: what delta-rs raises."""
        removed = () if self.columns is not None else self.removed
        handle.create_write_transaction(
            actions=[*map(_add, self.added), *map(_remove, removed)],
            mode="append" if self.columns is None else "overwrite",
            schema=handle.schema() if self.columns is None else self.columns,
            partition_by=list(schema.PARTITIONS),
            commit_properties=properties,
            post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
        )


def _add(fragment: Fragment) -> AddAction:
    return AddAction(
        path=fragment.path,
        size=fragment.size,
        partition_values={schema.DATASET: fragment.dataset, schema.OUTCOME: fragment.outcome},
        modification_time=int(time.time() * 1000),
        data_change=True,
        stats=json.dumps({"numRecords": fragment.rows}),
    )


def _remove(path: str) -> RemoveAction:
    return RemoveAction(path, data_change=True, deletion_timestamp=int(time.time() * 1000))
