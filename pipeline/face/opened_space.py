"""Read an output from Python: `open_space(path)`. A thin face over the reader of predictions and over `verify`.

space = open_space("s3://lake/out")
space.counts()
space.to_pandas(columns=["image_id", "embedding"], datasets=["street"], where="score > 0.5")
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from pipeline import schema
from pipeline.config import StorageConfig
from pipeline.errors import ConfigError, SpaceError
from pipeline.output import label_table, space as spaces
from pipeline.output.failed_rows import EXAMPLES, EXPORTED
from pipeline.output.layout import Layout
from pipeline.output.reader import BATCH_ROWS, Count, Failures, PredictionsReader
from pipeline.output.space import SpaceDescription
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import absolute

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import ray.data
    from numpy.typing import NDArray

    from pipeline.export.summary import ExportSummary
    from pipeline.search.hits import Hits
    from pipeline.search.queries import Queries
    from pipeline.verify import Verdict

VERIFIED = 200
"""Rows that `Space.verify` computes again by default."""


def open_space(path: str, storage: StorageConfig | None = None, *, model: str | None = None) -> "Space":
    """Open the newest committed version of an output, on any store.

    `path` is the output's folder: what a run's summary calls `output`. `storage` is needed only for what the
    environment does not say, such as an endpoint. `model` is the folder, URI or hub id of the model for queries by
    image and text, if it is no longer where the run found it. Raises: SpaceError if there is no output or its
    description is damaged or of a newer LakeLens; TableError if there are no predictions; StorageError.
    """
    output, opened = absolute(path), Storage(storage or StorageConfig())
    description = spaces.read(output, opened)
    if description is None:
        raise SpaceError(f"There is no output at {path}: {Layout(output).space} does not exist.")
    return Space(description, PredictionsReader.open(output, opened), model)


@dataclass(frozen=True)
class Space:
    """One embedding space with its committed rows, as of the version that was opened.

    Every reading method takes the same arguments: `columns` (by default all), `datasets` (by default all),
    `outcome` ("ok", "failed", or None for both) and `where`, an SQL condition on any column. Files of other
    datasets and outcomes are not opened, and other columns are not read. Raises: TableError for an unknown column
    or dataset, ConfigError for an unknown outcome or a condition that is not SQL, StorageError.
    """

    description: SpaceDescription
    reader: PredictionsReader
    model: str | None = None

    @property
    def path(self) -> str:
        """The folder or prefix of the output."""
        return self.reader.output

    @property
    def version(self) -> int:
        """The version of the predictions table that was opened."""
        return self.reader.version

    @property
    def datasets(self) -> list[str]:
        """The names of the datasets that have rows."""
        return self.reader.datasets

    def counts(self) -> list[Count]:
        """Count the rows by dataset and outcome, and failed rows by error code."""
        return self.reader.counts()

    def failures(self, examples: int = EXAMPLES) -> list[Failures]:
        """Count the failed rows by dataset, stage and error code, most first, each with a few uris."""
        return self.reader.failures(examples)

    def failed_rows(self, columns: Sequence[str] = EXPORTED, *, datasets: Sequence[str] = ()) -> pa.Table:
        """Return the failed rows, with the columns that tell why; the table can serve as a manifest."""
        return self.to_arrow(columns, datasets=datasets, outcome=schema.FAILED)

    def iter_batches(
        self,
        columns: Sequence[str] | None = None,
        *,
        datasets: Sequence[str] = (),
        outcome: str | None = schema.OK,
        where: str | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        """Read the rows as Arrow, up to `batch_rows` at a time: for outputs that do not fit into memory."""
        return self.reader.only(datasets, outcome).batches(columns, where=where, batch_rows=batch_rows)

    def to_arrow(
        self,
        columns: Sequence[str] | None = None,
        *,
        datasets: Sequence[str] = (),
        outcome: str | None = schema.OK,
        where: str | None = None,
    ) -> pa.Table:
        """Read the rows as an Arrow table. `embedding` is a list of float32."""
        return self.reader.only(datasets, outcome).to_arrow(columns, where=where)

    def to_pandas(
        self,
        columns: Sequence[str] | None = None,
        *,
        datasets: Sequence[str] = (),
        outcome: str | None = schema.OK,
        where: str | None = None,
    ) -> pd.DataFrame:
        """Read the rows as a pandas frame. `embedding` holds one float32 array (D,) for each row."""
        frame: pd.DataFrame = self.to_arrow(columns, datasets=datasets, outcome=outcome, where=where).to_pandas()
        return frame

    def to_polars(
        self,
        columns: Sequence[str] | None = None,
        *,
        datasets: Sequence[str] = (),
        outcome: str | None = schema.OK,
        where: str | None = None,
    ) -> "pl.DataFrame":
        """Read the rows as a Polars frame. Raises: ConfigError without Polars, an optional package."""
        try:
            import polars
        except ImportError as error:
            raise ConfigError("to_polars needs Polars, which is not installed: pip install polars.") from error
        found = polars.from_arrow(self.to_arrow(columns, datasets=datasets, outcome=outcome, where=where))
        assert isinstance(found, polars.DataFrame)
        return found

    def to_ray(
        self,
        columns: Sequence[str] | None = None,
        *,
        datasets: Sequence[str] = (),
        outcome: str | None = schema.OK,
        where: str | None = None,
    ) -> "ray.data.Dataset":
        """Read the rows as a Ray Data dataset, in tasks that read some files each.

        Ray Data uses the cluster that this process is connected to, and otherwise starts one on this machine.
        """
        from pipeline.face.ray_rows import dataset  # Ray: seconds that reading need not take

        return dataset(self.reader.only(datasets, outcome), columns, where)

    def labels(self, head: str) -> pa.Table:
        """Return the labels of a head, as `lakelens relabel` wrote them: `output.label_table.LABELS`.

        Raises: TableError if the head has no labels here, StorageError.
        """
        return label_table.read(self.path, head, self.reader.storage)

    def duplicates(self) -> pa.Table:
        """Return the groups that `lakelens duplicates` has written below the output: `result.DUPLICATES`.

        Raises: TableError if there are none, StorageError.
        """
        from pipeline.duplicates import result  # not needed for reading rows

        return result.read(self.path, self.reader.storage)

    def encode_text(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Return float32 (N, D): an embedding of each text in this space, for models with a text encoder.

        Its cosine with the embedding of an image tells how well the two fit. The encoder is loaded at the first
        call, and runs on this machine's CPU. Raises: SpaceError if the model has none, or is not the one that made
        the output; TableError if there is no ok row; ModelError, StorageError.
        """
        return self._queries.texts.encode(texts)

    def search(
        self,
        image: str | None = None,
        *,
        image_id: str | None = None,
        text: str | None = None,
        vector: "Sequence[float] | NDArray[Any] | None" = None,
        k: int = 10,
        datasets: Sequence[str] = (),
        where: str | None = None,
        columns: Sequence[str] = (),
        exactly: bool = False,
    ) -> "Hits":
        """Return the k ok rows whose embedding has the highest cosine with a query, nearest first.

        Give one query: the path or URI of an `image`; the `image_id` of a row, which is not among its own hits; a
        `text`, for models with a text encoder; or a `vector` of the space, float32 (D,). The model is loaded at
        the first image or text, and runs on this machine's CPU. `columns` are added to those of every hit. The
        index of the output answers if it can, unless `exactly`: `Hits.searched` says what was searched.
        Raises: QueryError if the query gives no vector; SpaceError if the model is another one now, or has no text
        encoder; ConfigError, ModelError, EngineError.
        """
        from pipeline.search import searching

        searching.require_askable(self.reader, k, where, datasets, columns)
        query = self._queries.only(image, image_id, text, vector)
        return searching.search(
            self.reader, query, k, where=where, datasets=datasets, columns=columns, exactly=exactly
        )

    def gallery(self, hits: "Hits") -> str:
        """Return a page of hits with thumbnails, as HTML that needs no network.

        The images are read again. Where that fails, the page says why. Raises: TableError, StorageError.
        """
        from pipeline.search import gallery, thumbnails

        shown, query = thumbnails.of_hits(self.reader, hits)
        return gallery.page(hits, shown, query, output=self.path, model=str(self.description.model))

    @cached_property
    def _queries(self) -> "Queries":
        from pipeline.search.queries import Queries  # models: seconds that reading need not take

        return Queries(self.reader, self.description, self.model)

    def export(
        self,
        out: str,
        *,
        to: str = "parquet",
        importer: str | None = None,
        columns: Sequence[str] | None = None,
        datasets: Sequence[str] = (),
        outcome: str = schema.OK,
        where: str | None = None,
        since: int | str | None = None,
        rows_per_file: int | None = None,
        address: str | None = None,
        on_progress: Callable[[int, int], None] = lambda done, rows: None,
    ) -> "ExportSummary":
        """Write the rows as files to a new or empty folder, on any store, and return what `export.json` says.

        `to` is "parquet", "npy", "faiss" or "jsonl". `importer` is "milvus" or "pinecone": Parquet files as these
        import them. `columns` are by default the usual ones and the kept columns. With `since`, a version or the
        folder of an earlier export, the folder gets upserts and deletes. Tasks write the files with `address`, and
        those of a large export if this process is connected to a Ray cluster. `on_progress` gets the numbers of
        written and of all rows. Raises: ConfigError, TableError, StorageError, ClusterError.
        """
        from pipeline.export import exporting, request  # not needed for reading

        asked = request.request(to, importer, columns, where, datasets, outcome, rows_per_file)
        return exporting.export(
            self.reader, self.description, out, asked, since=since, address=address, on_progress=on_progress
        )

    def verify(self, *, sample: int = VERIFIED, seed: int = 0) -> "Verdict":
        """Compute a sample of the ok rows again with plain transformers in float32, and compare.

        The images and the model are found through the config of the last run of the sampled rows. Raises:
        TableError if none of the images is there any more, SpaceError if the model is another one, ManifestError,
        ModelError, StorageError.
        """
        from pipeline.verify import verify  # Ray and the engines: seconds that reading need not take

        return verify(self.path, self.reader.storage, sample=sample, seed=seed)
