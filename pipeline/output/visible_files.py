"""The files that readers of a table see: those that its Delta log names at one version."""

from dataclasses import dataclass
from itertools import repeat
from urllib.parse import unquote

from deltalake import DeltaTable

from pipeline import schema


@dataclass(frozen=True)
class VisibleFile:
    """A file that the log names: its path below the table, and its size in bytes.

    `rows` is None where the log does not count them, as after maintenance by other programs. No `image_id` of the
    file is less than `least_id`, in the order of UTF-8; None where the log does not say.
    """

    path: str
    dataset: str
    outcome: str
    rows: int | None
    size: int
    least_id: str | None = None


def visible_files(handle: DeltaTable) -> list[VisibleFile]:
    """Return the visible files as the log describes them."""
    actions = handle.get_add_actions(flatten=True)
    names = ("path", *(f"partition.{name}" for name in schema.PARTITIONS), "num_records", "size_bytes")
    columns = [actions[name].to_pylist() for name in names]
    least = f"min.{schema.IMAGE_ID}"
    ids = actions[least].to_pylist() if least in actions.schema.names else repeat(None, actions.num_rows)
    return [VisibleFile(unquote(path), *facts) for path, *facts in zip(*columns, ids, strict=True)]


def paths(handle: DeltaTable, dataset: str | None = None) -> list[str]:
    """Return the paths of the visible files, of all datasets or of one, as dataset=…/outcome=…/name.

    delta-rs percent-encodes the folders above the table in its URIs, but not these three components.
    """
    chosen = None if dataset is None else [(schema.DATASET, "=", dataset)]
    return ["/".join(uri.rsplit("/", 3)[1:]) for uri in handle.file_uris(file_pruning_predicate=chosen)]
