"""Move a lake to another model: what that takes, and what changes. It reads two outputs, and writes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import schema, summary
from pipeline.config import RunConfig
from pipeline.errors import TableError
from pipeline.output import maintenance
from pipeline.output.layout import Layout
from pipeline.output.reader import PredictionsReader
from pipeline.planning.preview import PlanPreview, plan_config
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import absolute
from pipeline.summary import SummaryRecord

NEIGHBOURS = 10
"""Neighbours of an image that are compared between two spaces."""
_COLUMNS = (schema.IMAGE_ID, schema.DATASET, "label", "embedding")


@dataclass(frozen=True)
class MigrationPlan:
    """What filling the new output takes.

    `old_rows` counts the ok rows of the old output. `measured` is the summary of the run whose rate is used. It
    belongs to the new output if `own_rate`, otherwise to the old one, whose model is another.
    """

    preview: PlanPreview
    old_rows: int
    measured: SummaryRecord | None
    own_rate: bool

    @property
    def seconds(self) -> float | None:
        """The time at the measured rate; None if no run has measured one."""
        rate = self.measured.images_per_s if self.measured else 0.0
        return self.preview.pending / rate if rate else None


@dataclass(frozen=True)
class DatasetComparison:
    """How much two spaces agree on the images of a dataset, or of all if it is None.

    `overlap` is the mean share of the nearest `NEIGHBOURS` images of the sample that both spaces name. `labels` is
    the share of images with the same label; None if a space has no labels.
    """

    dataset: str | None
    images: int
    overlap: float
    labels: float | None


def plan(old: str, config: RunConfig, storage: Storage) -> MigrationPlan:
    """Count what the new output lacks, and how long that takes at the rate of an earlier run.

    Raises: TableError, ConfigError, ModelError, ManifestError, StorageError.
    """
    old = absolute(old)
    preview = plan_config(config)
    done = sum(file.rows or 0 for file in PredictionsReader.open(old, storage).only(outcome=schema.OK).files)
    own = _last_summary(preview.output, Storage(config.storage))
    measured = own or _last_summary(old, storage)
    return MigrationPlan(preview, done, measured, own is not None)


def compare(old: str, new: str, storage: Storage, *, sample: int, seed: int = 0) -> list[DatasetComparison]:
    """Compare two spaces on images that both have, as many of each dataset.

    Return a row for each dataset, the one with the least overlap first, and last one for all images. Raises:
    TableError if the outputs have fewer than two ok images in common, StorageError.
    """
    rows = _common(old, new, storage, sample, seed)
    overlap = _overlap(*(_unit(rows[f"embedding_{side}"]) for side in ("old", "new")))
    labels = [np.array(rows[f"label_{side}"].to_pylist(), object) for side in ("old", "new")]
    same = labels[0] == labels[1]
    have_labels = all(any(label is not None for label in side) for side in labels)
    datasets = np.array(rows[schema.DATASET].to_pylist())

    def over(dataset: str | None, chosen: NDArray[np.bool_]) -> DatasetComparison:
        share = float(same[chosen].mean()) if have_labels else None
        return DatasetComparison(dataset, int(chosen.sum()), float(overlap[chosen].mean()), share)

    each = [over(str(name), datasets == name) for name in np.unique(datasets)]
    every = over(None, np.ones(len(datasets), np.bool_))
    return [*sorted(each, key=lambda one: (one.overlap, one.dataset)), every]


def _common(old: str, new: str, storage: Storage, sample: int, seed: int) -> pa.Table:
    """Return images that both outputs have, with the columns of each."""
    readers = [PredictionsReader.open(absolute(output), storage).only(outcome=schema.OK) for output in (old, new)]
    first = readers[0].sample(sample, seed, list(_COLUMNS))
    batches = readers[1].batches(list(_COLUMNS), image_ids=first[schema.IMAGE_ID])
    second = pa.Table.from_batches(list(batches), readers[1].schema(list(_COLUMNS)))
    both = first.filter(pc.is_in(first[schema.IMAGE_ID], second[schema.IMAGE_ID]))
    if both.num_rows < 2:
        raise TableError(
            f"{new} has {both.num_rows} of {first.num_rows} sampled images of {old}; fill it with `lakelens run`."
        )
    second = second.take(pc.index_in(both[schema.IMAGE_ID], second[schema.IMAGE_ID]))
    sides: Mapping[str, pa.Table] = {"old": both, "new": second}
    columns = {f"{name}_{side}": rows[name] for side, rows in sides.items() for name in ("label", "embedding")}
    return pa.table({schema.DATASET: both[schema.DATASET], **columns})


def _unit(column: pa.ChunkedArray) -> NDArray[np.float32]:
    vectors = np.stack(column.to_numpy()).astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def _overlap(old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return for each image the share of its nearest neighbours that both spaces have."""
    count = min(NEIGHBOURS, len(old) - 1)
    near = [_nearest(vectors, count) for vectors in (old, new)]
    return np.array([len(np.intersect1d(a, b)) / count for a, b in zip(*near, strict=True)])


def _nearest(vectors: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)  # not the image itself
    return np.argpartition(-cosines, count - 1, axis=1)[:, :count]


def _last_summary(output: str, storage: Storage) -> SummaryRecord | None:
    """Return the summary of the newest run that processed images; None if there is none."""
    if storage.read(Layout(output).space) is None:
        return None
    runs = dict.fromkeys(commit.by for commit in maintenance.history(output, storage) if commit.rows)
    found = (summary.read(Layout(output).run(run_id).uri, storage) for run_id in runs)
    return next((one for one in found if one is not None and one.images_per_s > 0), None)
