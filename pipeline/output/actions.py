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

    `moves_rows` says that the change neither adds nor removes a row, for those who follow changes of the table.
    With `columns` the commit also changes the table's columns, and must remove every visible file: delta-rs writes
    a schema only in the mode overwrite, which removes all files that its handle sees. In the mode append it
    silently leaves a new schema out.
    """

    added: Sequence[Fragment] = ()
    removed: Collection[str] = ()
    columns: Schema | None = None
    moves_rows: bool = False

    def fits(self, visible: Collection[str]) -> bool:
        """Tell whether the change applies to a table with these visible files."""
        return set(self.removed) <= set(visible) if self.columns is None else set(self.removed) == set(visible)

    def commit(self, handle: DeltaTable, properties: CommitProperties) -> None:
        """Try to commit it as the next version of the handle. Raises: what delta-rs raises."""
        removed = () if self.columns is not None else self.removed
        handle.create_write_transaction(
            actions=[*map(self._add, self.added), *map(self._remove, removed)],
            mode="append" if self.columns is None else "overwrite",
            schema=handle.schema() if self.columns is None else self.columns,
            partition_by=list(schema.PARTITIONS),
            commit_properties=properties,
            post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
        )

    def _add(self, fragment: Fragment) -> AddAction:
        statistics = fragment.statistics.delta(fragment.rows)
        return AddAction(
            path=fragment.path,
            size=fragment.size,
            partition_values={schema.DATASET: fragment.dataset, schema.OUTCOME: fragment.outcome},
            modification_time=int(time.time() * 1000),
            data_change=not self.moves_rows,
            stats=json.dumps(statistics, ensure_ascii=False, separators=(",", ":")),
        )

    def _remove(self, path: str) -> RemoveAction:
        return RemoveAction(path, data_change=not self.moves_rows, deletion_timestamp=int(time.time() * 1000))
