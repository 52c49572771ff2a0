"""Check that an output holds what its model computes: compute a sample again with plain transformers in float32.

Verification reads committed rows only, writes nothing, and needs no cluster.
"""

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.config import RunConfig
from pipeline.engines import loading
from pipeline.engines.base import Engine
from pipeline.errors import TableError
from pipeline.images.reader import ImageReader
from pipeline.labels import head as heads, scoring
from pipeline.labels.head import Head
from pipeline.models import comparison
from pipeline.models.comparison import Agreement, ModelOutputs
from pipeline.output import label_table
from pipeline.output.reader import PredictionsReader
from pipeline.planning import manifest, relation
from pipeline.space_model import open_model
from pipeline.storage import data_uris, sql, temporary_folders
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import absolute

BATCH = 32
"""Images that are decoded and computed at once."""
COMPARED = ("image_id", "dataset", "run_id", "labels", "embedding", "content_sha256")


@dataclass(frozen=True)
class Verdict:
    """How well the sample agrees with the model: for each dataset, and as the last item for all of them.

    `changed` counts sampled images whose bytes have changed since the run. `gone` counts those that cannot be
    found or decoded any more. `written_out` counts the rows of `data:` URIs, which cannot be sampled: the output
    keeps only a hash of these images.
    """

    model: str
    agreements: list[Agreement]
    changed: int
    gone: int
    written_out: int


def verify(
    output: str, storage: Storage, *, sample: int, seed: int = 0, head: str | None = None, name: str | None = None
) -> Verdict:
    """Compute `sample` ok rows again, spread evenly over the datasets.

    With the folder of a `head`, compare its labels here with those that it gives to the vectors of this forward
    pass. `name` is that of the labels, by default that of the folder. The config of a run of the output says
    where the images and the model are. Raises: HeadError if the head is of another space; TableError if there are
    no ok rows except those of `data:` URIs, or if none of the images is available unchanged; SpaceError if the
    model did not make the output; ManifestError, ModelError, StorageError.
    """
    output = absolute(output)
    labels = None if head is None else name or heads.name_of(head)
    rows, written_out = _sampled(output, storage, sample, seed, labels)
    made = open_model(output, storage, max(rows["run_id"].to_pylist()))
    settings, model = made.config, made.model
    located = _located(rows, settings, made.description.format)
    engine = loading.load_reference(model, settings.embedding, comparison.TOP_LABELS)
    classifier = None if head is None else heads.load(head, storage)
    if classifier is not None:
        classifier.require(made.description, output)
    with ImageReader(settings, model.preprocessing) as reader:
        batches = [
            _compute_again(located.slice(at, BATCH), reader, engine, classifier)
            for at in range(0, located.num_rows, BATCH)
        ]
    names = [name for batch in batches for name in batch.datasets]
    if not names:
        raise TableError(
            f"None of the {rows.num_rows} sampled images of {output} is available unchanged. Check that the "
            "manifest and its images are still there."
        )
    held = comparison.concatenate(batch.held for batch in batches if batch.datasets)
    agreements = comparison.compare(
        names, held, comparison.concatenate(batch.true for batch in batches if batch.true)
    )
    changed = sum(batch.changed for batch in batches)
    return Verdict(model.name, agreements, changed, rows.num_rows - len(names) - changed, written_out)


def _sampled(output: str, storage: Storage, sample: int, seed: int, head: str | None) -> tuple[pa.Table, int]:
    """Draw rows; return them and the number of rows of `data:` URIs, which are not drawn.

    With a head, draw rows that have a label of it, which stands in `labels`.
    """
    labelled = PredictionsReader.open(output, storage).only(outcome=schema.OK)
    total = sum(count.rows for count in labelled.counts())
    if not total:
        raise TableError(f"There are no labelled rows in {output}: no image has been processed successfully.")
    hashed = f"regexp_full_match(uri, {sql.literal(data_uris.HASHED)})"
    written_out = labelled.count(hashed)
    if written_out == total:
        raise TableError(
            f"All {total} labelled rows of {output} come from data: URIs, which the output does not keep."
        )
    if head is None:
        return labelled.sample(sample, seed, COMPARED, where=f"NOT {hashed}"), written_out
    label_table.existing(output, head, storage)
    columns = [f"{head}.labels" if name == "labels" else name for name in COMPARED]
    where = f"NOT {hashed} AND {sql.quoted(head)}.label IS NOT NULL"
    return labelled.sample(sample, seed, columns, where=where).rename_columns(list(COMPARED)), written_out


def _located(rows: pa.Table, settings: RunConfig, id_format: int) -> pa.Table:
    """Return the rows that the manifest still has, with the columns of `schema.PENDING`."""

    def read(check_text: bool) -> pa.Table:
        with temporary_folders.folder() as room, duckdb.connect() as connection:
            storage = Storage(settings.storage)
            manifest.create_input(
                connection, settings.manifest, storage, room, id_format=id_format, check_text=check_text
            )
            connection.register("held", rows)
            return connection.sql(
                f"SELECT {columns}, held.dataset AS of, labels, embedding, held.content_sha256 AS then_sha256 "
                f"FROM input JOIN held USING (image_id) WHERE {schema.PROBLEM} IS NULL "
                f"QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY {schema.ORDINAL}) = 1"
            ).to_arrow_table()

    null = {schema.TRIES: "NULL::INTEGER", schema.REPLACES: "NULL::VARCHAR"}
    columns = ", ".join(
        null.get(name, f"input.{sql.quoted(name)}") + f" AS {name}" for name in schema.PENDING.names
    )
    try:
        return manifest.retry_with_text_checks(read)
    except duckdb.Error as error:
        raise relation.unreadable(error, settings.manifest) from error


@dataclass(frozen=True)
class _Batch:
    """The unchanged images of a batch: their datasets, the outputs in the table, and the true outputs.

    `changed` counts the changed images.
    """

    datasets: list[str]
    held: ModelOutputs
    true: ModelOutputs | None
    changed: int


def _compute_again(rows: pa.Table, reader: ImageReader, engine: Engine, head: Head | None) -> _Batch:
    block = reader.read(rows.select(schema.PENDING.names))
    there = block.rows["error_code"].is_null()
    unchanged = pc.equal(block.rows["content_sha256"], rows["then_sha256"])
    same = pc.fill_null(pc.and_(there, unchanged), False)  # no hash: not fetched
    pixels = block.pixels.of_rows(same.to_numpy())
    kept = rows.filter(same)
    labels = [[label["index"] for label in labels or ()] for labels in kept["labels"].to_pylist()]
    indices = np.array(labels, np.int32).reshape(len(labels), len(labels[0]) if labels else 0)
    held = ModelOutputs(indices, np.array(kept["embedding"].to_pylist(), np.float32))
    changed = pc.sum(there).as_py() - kept.num_rows
    scored = engine.predict(pixels) if kept.num_rows else None
    true = ModelOutputs(scored.indices, scored.embeddings) if scored else None
    if head is not None and true is not None:
        raw = true.embeddings
        scored_by_head = scoring.score(head, raw, np.ones(len(raw), np.float32), comparison.TOP_LABELS)
        true = ModelOutputs(scored_by_head.indices, raw)
    return _Batch(kept["of"].to_pylist(), held, true, changed)
