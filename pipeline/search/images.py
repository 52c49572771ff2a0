"""Images as queries: an image -> its vector, on the way that the images of the output went."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.engines import loading
from pipeline.engines.base import Engine
from pipeline.errors import QueryError
from pipeline.images.reader import ImageReader
from pipeline.models import int8
from pipeline.output.layout import Layout
from pipeline.search.places import place_of, rows_of
from pipeline.space_model import SpaceModel, open_model
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import redacted


class ImageQueries:
    """Embeds images into the space of one output, with OpenVINO on this machine's CPU."""

    def __init__(self, output: str, run_id: str, storage: Storage, model: str | None = None) -> None:
        """Load the model that the run `run_id` used, in float32, or in int8 where the space is that of int8.

        `model` is where it is now; by default where the run found it. Raises: SpaceError if the model is another
        one now; TableError, ConfigError, ModelError, EngineError, StorageError.
        """
        self._made = open_model(output, storage, run_id, model)
        self._engine = _engine(self._made, output, storage)

    def encode(self, images: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of images, float32 (N, D), given their paths or URIs. They are not normalised.

        Raises: QueryError if an image cannot be read or decoded; ClusterError, StorageError.
        """
        with ImageReader(self._made.config, self._made.model.preprocessing) as reader:
            read = reader.read(rows_of([place_of(image) for image in images]))
        for image, row in zip(images, read.rows.to_pylist(), strict=True):
            if row["error_code"]:
                raise QueryError(
                    f"The image {redacted(image)} cannot be a query: {row['stage']} failed with "
                    f"{row['error_code']}, {row['message']}."
                )
        return self._engine.predict(read.pixels.images).embeddings


def _engine(made: SpaceModel, output: str, storage: Storage) -> Engine:
    quantised = made.config.model.precision == int8.INT8
    graph: Path | None = int8.fetch(Layout(output).int8_model, storage) if quantised else None
    config = made.config.model.model_copy(update={"precision": int8.INT8 if quantised else "fp32"})
    return loading.load_engine(
        made.model,
        config,
        made.config.embedding,
        engine="openvino",
        top_k=1,
        threads=os.cpu_count() or 1,
        graph=graph,
    )
