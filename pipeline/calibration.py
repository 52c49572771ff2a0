"""The int8 model of a space. The first run makes it from its own images, and refuses it if it is not good enough.

A run calls `ensure`. `make_int8` is a task on the cluster: NNCF needs memory and time that the driver lacks.
"""

import os
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from pipeline import schema
from pipeline.cluster.run_work import RunWork
from pipeline.config import RunConfig
from pipeline.engines import loading
from pipeline.engines.base import Engine
from pipeline.errors import AgreementError, EngineError
from pipeline.images.reader import ImageReader
from pipeline.models import comparison, int8
from pipeline.models.comparison import Agreement, Limits, ModelOutputs
from pipeline.models.model import Model, resolve
from pipeline.output.layout import Layout
from pipeline.preprocessing import Preprocessing
from pipeline.storage import sql, temporary_folders
from pipeline.storage.filesystems import Storage

CALIBRATED = 300
"""Images that show the ranges of the activations: NNCF's default."""
CHECKED = 100
"""Further images on which the int8 model is compared with float32."""
WANTED = CALIBRATED + CHECKED
DRAWN = 10 * WANTED
"""Rows that are drawn at random. They are read only until `WANTED` images are decoded; many may fail."""
BATCH = 32
"""Images that are decoded and computed at once."""


def ensure(config: RunConfig, output: str, files: tuple[str, ...], work: RunWork) -> None:
    """Make and store the int8 model of an output that has none, from the pending rows of `files`.

    It runs as a task of the run. Raises: EngineError if there are too few images,
    AgreementError if the model is too far from float32; StorageError.
    """
    if int8.find(Layout(output).int8_model, Storage(config.storage)) is None:
        work.result(make_int8.remote(config, output, files))


# One call: with NNCF, its process holds some 700 MB.
@ray.remote(num_cpus=0, max_calls=1)  # type: ignore[untyped-decorator]
def make_int8(config: RunConfig, output: str, files: tuple[str, ...]) -> None:
    """Quantise the model, compare it with float32, and store it. Raises: see `ensure`."""
    storage = Storage(config.storage)
    model = resolve(config.model, storage)
    rows = drawn(files, storage)
    images = decoded_images(config, rows, model.preprocessing)
    if len(images) < CALIBRATED:
        raise EngineError(
            f"Precision int8 is calibrated on {CALIBRATED} images, but of {rows.num_rows} pending rows only "
            f"{len(images)} could be decoded; use another precision."
        )
    with temporary_folders.folder() as folder:
        loading.write_int8(model, config.embedding.pooling, images[:CALIBRATED], folder)
        checked = images[CALIBRATED:] if len(images) == WANTED else images
        agreement = _agreement(config, model, folder, checked)
        shortfall = Limits().shortfall(agreement)
        if shortfall:
            raise AgreementError(
                f"The int8 model of {model.name} is too far from float32: {shortfall} on {len(checked)} images; "
                "use another precision."
            )
        int8.store(Layout(output).int8_model, storage, folder, CALIBRATED, agreement)


def drawn(files: tuple[str, ...], storage: Storage) -> pa.Table:
    """Draw up to `DRAWN` pending rows at random from all files; the same rows every time. Raises: StorageError."""
    columns = ", ".join(map(sql.quoted, schema.PENDING.names))
    with duckdb.connect() as connection:
        sql.register_stores(connection, files, storage)
        return connection.sql(
            f"SELECT {columns} FROM read_parquet({sql.files(files)}) ORDER BY hash(image_id) LIMIT {DRAWN}"
        ).to_arrow_table()


def decoded_images(config: RunConfig, rows: pa.Table, steps: Preprocessing) -> NDArray[np.uint8]:
    """Read rows until `WANTED` images are decoded. Return these, uint8 (N, H, W, 3), or fewer if rows run out."""
    images = np.empty((0, steps.height, steps.width, 3), np.uint8)
    with ImageReader(config, steps) as reader:
        for at in range(0, rows.num_rows, BATCH):
            images = np.concatenate([images, reader.read(rows.slice(at, BATCH)).pixels.images])
            if len(images) >= WANTED:
                break
    return images[:WANTED]


def _agreement(config: RunConfig, model: Model, folder: Path, images: NDArray[np.uint8]) -> Agreement:
    """Compare the graph in a folder with float32."""
    engine = loading.load_engine(
        model,
        config.model,
        config.embedding,
        engine="openvino",
        top_k=comparison.TOP_LABELS,
        threads=os.cpu_count() or 1,
        graph=folder / "graph.xml",
    )
    reference = loading.load_reference(model, config.embedding, comparison.TOP_LABELS)
    datasets = [""] * len(images)  # their agreement by dataset is not asked for
    return comparison.compare(datasets, _outputs(engine, images), _outputs(reference, images))[-1]


def _outputs(engine: Engine, images: NDArray[np.uint8]) -> ModelOutputs:
    scored = [engine.predict(images[at : at + BATCH]) for at in range(0, len(images), BATCH)]
    return comparison.concatenate(ModelOutputs(one.indices, one.embeddings) for one in scored)
