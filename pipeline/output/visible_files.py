"""The files that readers of a table see: those that its Delta log names at one version."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable

from pipeline import schema

FEW_IDS = 1_000
"""More ids than this are in most files."""


@dataclass(frozen=True)
class VisibleFile:
    """A file that the log names: its path below the table, and its size in bytes.

    `rows` is None where the log does not count them, as after maintenance by other programs. Each `image_id` of
    the file lies between `least_id` and `greatest_id`, in the order of UTF-8; None where the log does not say.
    """

    path: str
    dataset: str
    outcome: str
    rows: int | None
    size: int
    least_id: str | None = None
    greatest_id: str | None = None


def visible_files(handle: DeltaTable) -> list[VisibleFile]:
    """Return the visible files as the log describes them."""
    actions = handle.get_add_actions(flatten=True)
    names = ["path", *(f"partition.{name}" for name in schema.PARTITIONS), "num_records", "size_bytes"]
    names += [f"{bound}.{schema.IMAGE_ID}" for bound in ("min", "max")]
    there = actions.schema.names  # without bounds if no file has statistics
    columns = (actions[name].to_pylist() if name in there else repeat(None, actions.num_rows) for name in names)
    return [VisibleFile(unquote(path), *facts) for path, *facts in zip(*columns, strict=True)]


def holding(files: Sequence[VisibleFile], image_ids: pa.ChunkedArray) -> tuple[VisibleFile, ...]:
    """Return the files that can hold one of these ids. All, if there are more than `FEW_IDS`."""
    if len(image_ids) > FEW_IDS:
        return tuple(files)
    ids = sorted(image_ids.to_pylist())  # Python orders text as UTF-8 does

    def can_hold(file: VisibleFile) -> bool:
        first = 0 if file.least_id is None else bisect_left(ids, file.least_id)
        return first < len(ids) and (file.greatest_id is None or ids[first] <= file.greatest_id)

    return tuple(filter(can_hold, files))


def paths(handle: DeltaTable, dataset: str | None = None) -> list[str]:
    """Return the paths of the visible files, of all datasets or of one, as dataset=…/outcome=…/name.

    delta-rs percent-encodes the folders above the table in its URIs, but not these three components.
    """
    chosen = None if dataset is None else [(schema.DATASET, "=", dataset)]
    return ["/".join(uri.rsplit("/", 3)[1:]) for uri in handle.file_uris(file_pruning_predicate=chosen)]
