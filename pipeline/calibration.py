"""The int8 model of a space, made by its first run from its own images, and refused if it is not good enough."""

import os

import duckdb
import numpy as np
import ray
from numpy.typing import NDArray

from pipeline import schema
from pipeline.cluster.run_work import RunWork
from pipeline.cluster.workers import Decoder
from pipeline.config import RunConfig
from pipeline.engines import loading
from pipeline.engines.base import Engine
from pipeline.errors import AgreementError, EngineError
from pipeline.images.pixels import DensePixels
from pipeline.models import comparison, int8
from pipeline.models.comparison import Limits, ModelOutputs
from pipeline.models.model import Model, resolve
from pipeline.output.layout import Layout
from pipeline.storage import sql, temporary_folders
from pipeline.storage.filesystems import Storage

IMAGES = 300
"""Images that show the ranges of the activations: what NNCF takes by default."""
CHECKED = 100
"""Further images on which the int8 model is compared with float32."""
BATCH = 32
"""Images that are decoded and computed at once."""
SPARE = 1.5
"""So many times as many are drawn: some cannot be decoded."""


def ensure(config: RunConfig, output: str, files: tuple[str, ...], work: RunWork) -> None:
    """Make and store the int8 model of an output that has none, from the pending rows of `files`, in a task
    of the run.

    Raises: EngineError if there are too few images, AgreementError if it is too far from float32; StorageError.
    """
    if int8.find(Layout(output).int8_model, Storage(config.storage)) is None:
        work.result(_made.remote(config, output, files))


# One call: with NNCF, its process holds some 700 MB.
@ray.remote(num_cpus=0, max_calls=1)  # type: ignore[untyped-decorator]
def _made(config: RunConfig, output: str, files: tuple[str, ...]) -> None:
    storage = Storage(config.storage)
    model = resolve(config.model, storage)
    images = _images(config, storage, files, model)
    if len(images) < IMAGES:
        raise EngineError(
            f"Precision int8 is calibrated on {IMAGES} images of the first run, and only {len(images)} of this "
            "one's could be decoded; use another precision."
        )
    checked = images[IMAGES:] if len(images) >= IMAGES + CHECKED else images
    with temporary_folders.folder() as made:
        loading.write_int8(model, config.embedding.pooling, images[:IMAGES], made)
        engine = loading.load_engine(
            model,
            config.model,
            config.embedding,
            engine="openvino",
            top_k=comparison.TOP_LABELS,
            threads=os.cpu_count() or 1,
            graph=made / "graph.xml",
        )
        reference = loading.load_reference(model, config.embedding, comparison.TOP_LABELS)
        names = [""] * len(checked)
        found = comparison.compare(names, _outputs(engine, checked), _outputs(reference, checked))[-1]
        missed = Limits().shortfall(found)
        if missed:
            raise AgreementError(
                f"The int8 model of {model.name} is too far from float32: {missed} on {len(checked)} images; use "
                "another precision."
            )
        int8.store(Layout(output).int8_model, storage, made, IMAGES, found)


def _images(config: RunConfig, storage: Storage, files: tuple[str, ...], model: Model) -> NDArray[np.uint8]:
    """Pixels of up to `IMAGES + CHECKED` pending rows, drawn from all of them: uint8 (B, H, W, 3)."""
    wanted, columns = IMAGES + CHECKED, ", ".join(map(sql.quoted, schema.PENDING.names))
    with duckdb.connect() as connection:
        sql.register_stores(connection, files, storage)
        rows = connection.sql(
            f"SELECT {columns} FROM read_parquet({sql.files(files)}) "
            f"USING SAMPLE reservoir({int(SPARE * wanted)} ROWS) REPEATABLE (0)"
        ).to_arrow_table()
    decoder = Decoder(config, model.preprocessing, "calibration")
    kept: list[NDArray[np.uint8]] = []
    for at in range(0, rows.num_rows, BATCH):
        decoded = decoder(rows.slice(at, BATCH))
        kept.append(DensePixels.from_rows(decoded, decoder.steps.height, decoder.steps.width).images)
        if sum(map(len, kept)) >= wanted:
            break
    return np.concatenate(kept)[:wanted]


def _outputs(engine: Engine, images: NDArray[np.uint8]) -> ModelOutputs:
    scored = [engine.predict(images[at : at + BATCH]) for at in range(0, len(images), BATCH)]
    return comparison.concatenate(ModelOutputs(one.indices, one.embeddings) for one in scored)
