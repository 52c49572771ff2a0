"""Labels that people gave, and the stored vectors of their images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from pipeline import columns as column_names, schema
from pipeline.errors import HeadError, first_line
from pipeline.labels.scoring import F32, vectors_of
from pipeline.output.reader import PredictionsReader
from pipeline.storage.filesystems import Storage, failure

COLUMNS = (schema.IMAGE_ID, "label")


@dataclass(frozen=True)
class Truth:
    """The labels of each image, and what could not be used: rows without a label."""

    labels: dict[str, tuple[str, ...]]
    unlabelled: int

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all labels, in alphabetical order."""
        return tuple(sorted({label for labels in self.labels.values() for label in labels}))

    @property
    def single(self) -> bool:
        """Whether every image has exactly one label."""
        return all(len(labels) == 1 for labels in self.labels.values())


@dataclass(frozen=True)
class Examples:
    """N images that have labels and vectors.

    `vectors` is float32 (N, D), `norms` float32 (N,), `targets` bool (N, C) with a column for each of `names`.
    `absent` counts the images of the truth that have no ok row in the output.
    """

    names: tuple[str, ...]
    image_ids: tuple[str, ...]
    vectors: F32
    norms: F32
    targets: np.ndarray[tuple[int, int], np.dtype[np.bool_]]
    absent: int

    def part(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> "Examples":
        """Return some of the images, by their positions."""
        ids = tuple(self.image_ids[row] for row in rows)
        return Examples(self.names, ids, self.vectors[rows], self.norms[rows], self.targets[rows], self.absent)


def read(uri: str, storage: Storage) -> Truth:
    """Read a Parquet or CSV file with the columns image_id and label, one row for each label of an image.

    Raises: HeadError if it is no such file, or has no label; StorageError.
    """
    fs, path = storage.filesystem(uri)
    try:
        with fs.open(path, "rb") as file:
            table = _parquet(file) if uri.endswith(".parquet") else _csv(file)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise HeadError(f"{uri} is not a Parquet or CSV file of labels: {first_line(error)}.") from error
    except Exception as error:
        raise failure(error, uri) from error
    for name in COLUMNS:
        if name not in table.column_names:
            near = column_names.near(name, table.column_names)
            hint = f"did you mean {near!r}? Rename it." if near else f"it has {', '.join(table.column_names)}."
            raise HeadError(f"{uri} has no column {name!r}; {hint}")
    ids, labels = (table[name].cast(pa.string()) for name in COLUMNS)
    found = dict[str, list[str]]()
    for image_id, label in zip(ids.to_pylist(), labels.to_pylist(), strict=True):
        if image_id and label and label not in found.setdefault(image_id, []):
            found[image_id].append(label)
    if not any(found.values()):
        raise HeadError(f"{uri} has no row with an image_id and a label.")
    unlabelled = pc.sum(pc.fill_null(pc.equal(labels, ""), True)).as_py()
    return Truth({image_id: tuple(held) for image_id, held in found.items()}, int(unlabelled or 0))


def examples(truth: Truth, reader: PredictionsReader, names: Sequence[str] | None = None) -> Examples:
    """Look up the vectors of the images. `names` are the classes; by default those of the truth.

    Raises: HeadError if no image is in the output, or a label is not among the names; TableError, StorageError.
    """
    classes = truth.names if names is None else tuple(names)
    unknown = sorted(set(truth.names) - set(classes))
    if unknown:
        raise HeadError(f"The label {unknown[0]!r} of the truth is none of the head's {len(classes)} labels.")
    place = {name: at for at, name in enumerate(classes)}
    wanted = pa.chunked_array([pa.array(list(truth.labels), pa.string())])
    ok = reader.only(outcome=schema.OK)
    rows = pa.Table.from_batches(
        list(ok.batches([schema.IMAGE_ID, "embedding", "embedding_norm"], image_ids=wanted)),
        ok.schema([schema.IMAGE_ID, "embedding", "embedding_norm"]),
    ).sort_by(schema.IMAGE_ID)
    if not rows.num_rows:
        first = next(iter(truth.labels))
        raise HeadError(
            f"None of the {len(truth.labels)} images, such as {first!r}, is an ok row of {reader.output}."
        )
    ids = tuple(rows[schema.IMAGE_ID].to_pylist())
    targets = np.zeros((len(ids), len(classes)), np.bool_)
    for row, image_id in enumerate(ids):
        targets[row, [place[label] for label in truth.labels[image_id]]] = True
    return Examples(classes, ids, *vectors_of(rows), targets, absent=len(truth.labels) - len(ids))


def _parquet(file: object) -> pa.Table:
    found = pq.ParquetFile(file)
    return found.read([name for name in found.schema_arrow.names if name in COLUMNS] or None)


def _csv(file: object) -> pa.Table:
    as_text = pa_csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string()), strings_can_be_null=True)
    return pa_csv.read_csv(file, convert_options=as_text)
