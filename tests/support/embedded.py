"""Outputs that a model has really made, without Ray: the rows, configs and pending files that a run leaves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.config import RunConfig
from pipeline.engines import loading
from pipeline.images.reader import ImageReader
from pipeline.models.model import resolve
from pipeline.output import space
from pipeline.output.fragment_files import write_fragments
from pipeline.output.layout import Layout
from pipeline.output.prediction_rows import PredictionRowBuilder, parquet_bytes
from pipeline.output.table import Predictions
from tests.support import lakes
from tests.support.making import STORAGE

RUN = "20260101T000000-abcdef"


def write_output(
    folder: Path | str, model: Path, rows: Sequence[Mapping[str, Any]], *overrides: str, run_id: str = RUN
) -> RunConfig:
    """Decode and embed the images of `rows`, which have `uri` and may have other columns of a pending row.

    The output is `out` in a folder on any store.
    """
    output = f"{folder}/out"
    config = lakes.settings(f"{folder}/manifest.parquet", model, output, *overrides)
    found = resolve(config.model, STORAGE)
    space.claim(output, found.space(config.embedding, config.decode), STORAGE)
    always = dict.fromkeys(schema.PENDING.names)
    named = [{**always, "image_id": row["uri"], "dataset": "images", **row} for row in rows]
    kept = [name for name in named[0] if name not in schema.PENDING.names]
    columns = pa.schema([*schema.PENDING, *(pa.field(name, pa.string()) for name in kept)])
    pending = pa.Table.from_pylist(named, schema=columns)
    with ImageReader(config, found.preprocessing) as reader:
        read = reader.read(pending)
    engine = loading.load_engine(
        found, config.model, config.embedding, engine="openvino", top_k=config.labels.top_k, threads=2
    )
    builder = PredictionRowBuilder(read.rows, found.labels, normalize=config.embedding.normalize)
    if len(read.pixels.images):
        builder.add(engine.predict(read.pixels.images))
    table = Predictions.open(output, STORAGE) or Predictions.create(output, STORAGE, list(columns)[len(always) :])
    epoch = table.claim(run_id, [])
    assert epoch is not None
    written = write_fragments(builder.table(run_id), output=output, storage=STORAGE, epoch=epoch)
    table.commit([one.fragment for one in written], run_id, epoch)
    files = Layout(output).run(run_id)
    STORAGE.write(files.config, config.to_yaml().encode())
    STORAGE.write(f"{files.pending}/00000.parquet", parquet_bytes(pending))
    return config
