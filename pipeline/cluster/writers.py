"""The tasks that write the files of one run. It does not know when the files are committed."""

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

import ray
from ray import ObjectRef

from pipeline.cluster.commit import Newer
from pipeline.cluster.gather import Groups
from pipeline.cluster.ray_internals import Block
from pipeline.cluster.run_work import RunWork
from pipeline.errors import StorageError
from pipeline.output.fragment import RemainingRows
from pipeline.output.fragment_files import write_fragments, write_remaining_rows
from pipeline.storage.filesystems import Storage

_OPTIONS = {"num_cpus": 0, "max_retries": 3, "retry_exceptions": [StorageError]}
write_task = ray.remote(**_OPTIONS)(write_fragments)
rewrite_task = ray.remote(**_OPTIONS)(write_remaining_rows)


class Writers:
    """Starts write tasks. The end of the run ends them."""

    def __init__(self, work: RunWork, *, output: str, storage: Storage, epoch: int) -> None:
        self._work = work
        self._place: dict[str, Any] = {"output": output, "storage": storage, "epoch": epoch}

    def written(self, groups: Groups) -> Generator[ObjectRef, None, None]:
        """Start a task for each group of blocks that writes its rows to files. Close `groups` at the end."""
        with closing(groups):
            for group in groups:
                yield self._write(group)

    def _write(self, group: Sequence[Block]) -> ObjectRef:
        return self._work.task(write_task.remote(*(ref for ref, _ in group), **self._place))

    def rewrite(self, replaced: Newer) -> dict[str, RemainingRows]:
        """Write each file again without the rows that newer files replace. Wait for all of them."""
        refs = [
            self._work.task(rewrite_task.remote(path, newer, **self._place)) for path, newer in replaced.items()
        ]
        return dict(zip(replaced, ray.get(refs), strict=True))
