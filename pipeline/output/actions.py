"""What one commit does to the predictions table, as delta-rs takes it."""

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
    """Files that become visible, and the paths of those that go, below the table.

    With `columns` the table's columns change as well, and then every visible file goes: delta-rs writes a schema
    only into a commit of the mode overwrite, which removes all files that its handle sees. With the mode append it
    would leave a differing schema out of the commit without a word.
    """

    added: Sequence[Fragment] = ()
    removed: Collection[str] = ()
    columns: Schema | None = None

    def fits(self, visible: Collection[str]) -> bool:
        """Whether the table can be changed so while these are its visible files."""
        return set(self.removed) <= set(visible) if self.columns is None else set(self.removed) == set(visible)

    def commit(self, handle: DeltaTable, properties: CommitProperties) -> None:
        """Try to make it the handle's next version. Raises: what delta-rs raises."""
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
