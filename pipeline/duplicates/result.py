"""Groups of duplicates as one Parquet file, and what share of the lake they are."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.errors import ConfigError, TableError, first_line
from pipeline.output.layout import Layout
from pipeline.output.reader import PredictionsReader
from pipeline.storage import sql
from pipeline.storage.filesystems import Storage, failure
from pipeline.storage.uris import redacted

DUPLICATES = pa.schema(
    [
        pa.field("group", pa.int64(), nullable=False),
        schema.PREDICTIONS.field(schema.IMAGE_ID),
        schema.PREDICTIONS.field(schema.DATASET),
        pa.field("distance", pa.float32(), nullable=False),
        pa.field("exact", pa.bool_(), nullable=False),
        pa.field("keep", pa.bool_(), nullable=False),
    ]
)
"""One row for each image that is in a group. The first one of a group is its largest image, and stays. `distance`
is the cosine distance to it, and `exact` tells that the files have the same bytes. Images that are near others of
the group but not near the first one stay, too."""
SUMMARY = b"lakelens.duplicates"
"""Metadata of the Parquet file: the `Found` as JSON."""
_MANIFEST = (schema.IMAGE_ID, schema.URI, schema.DATASET, schema.VERSION)


@dataclass(frozen=True)
class Share:
    """How many of a dataset's images are more than one of a group needs.

    `exact` of the `images` have the same bytes as another one that stays; `near` only look like one that stays.
    """

    dataset: str
    images: int
    exact: int
    near: int

    @property
    def part(self) -> float:
        """The share of the images that could go."""
        return (self.exact + self.near) / self.images if self.images else 0.0


@dataclass(frozen=True)
class Found:
    """What a search for duplicates found in one version of the predictions, and where the groups are.

    `refused` pairs are near, but would have made a group larger than `grouping.LARGEST`.
    """

    duplicates: str
    table_id: str
    version: int
    distance: float
    groups: int
    refused: int
    seconds: float
    datasets: tuple[Share, ...]

    @property
    def total(self) -> Share:
        """The sum of all datasets."""
        counts = [(share.images, share.exact, share.near) for share in self.datasets]
        return Share("total", *(map(sum, zip(*counts, strict=True)) if counts else (0, 0, 0)))

    @property
    def sentence(self) -> str:
        """The result in words."""
        total = self.total
        left = f" {self.refused:,} near pairs would have made a group too large." if self.refused else ""
        return (
            f"{total.exact + total.near:,} of {total.images:,} images ({total.part:.1%}) are duplicates "
            f"of another one, in {self.groups:,} groups (version {self.version}, {self.seconds:.1f} s).{left} "
            f"Groups: {redacted(self.duplicates)}"
        )

    def described(self) -> dict[str, object]:
        """Return everything as JSON takes it."""
        shares = [asdict(share) | {"share": share.part} for share in (*self.datasets, self.total)]
        return asdict(self) | {"datasets": shares[:-1], "total": shares[-1]}


def place(out: str | None, output: str) -> str:
    """Return where the groups go: by default below the output. Raises: ConfigError for another ending."""
    if out is not None and not out.endswith(".parquet"):
        raise ConfigError(f"Cannot write {redacted(out)}: its name must end in .parquet.")
    return Layout(output).duplicates if out is None else out


def write(file: Path, batches: Iterator[pa.RecordBatch], found: Found) -> None:
    """Write `DUPLICATES` to a local file."""
    metadata = {SUMMARY: json.dumps(found.described()).encode()}
    with pq.ParquetWriter(file, DUPLICATES.with_metadata(metadata), compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


def read(output: str, storage: Storage) -> pa.Table:
    """Return the groups that the last search has written below an output, as `DUPLICATES`.

    Raises: TableError if there are none or the file is damaged, StorageError.
    """
    uri = Layout(output).duplicates
    fs, path = storage.filesystem(uri)
    try:
        with fs.open(path, "rb") as file:
            return pq.read_table(file)
    except FileNotFoundError as error:
        raise TableError(f"There is no {uri}: run lakelens duplicates {output} first.") from error
    except pa.ArrowInvalid as error:
        raise TableError(
            f"{uri} is damaged: {first_line(error)}. Run lakelens duplicates {output} again."
        ) from error
    except Exception as error:
        raise failure(error, uri) from error


def write_kept(reader: PredictionsReader, duplicates: Path, file: Path) -> None:
    """Write the ok rows that stay, which are in no group or kept, to a local Parquet file: a manifest.

    Raises: TableError, StorageError.
    """
    columns = [*_MANIFEST, *(field.name for field in schema.kept(reader.columns))]
    gone = f"SELECT image_id FROM read_parquet({sql.files([str(duplicates)])}) WHERE NOT keep"
    ok = reader.only(outcome=schema.OK)
    with pq.ParquetWriter(file, ok.schema(columns), compression="zstd") as writer:
        for batch in ok.batches(columns, where=f"image_id NOT IN ({gone})"):
            writer.write_batch(batch)
