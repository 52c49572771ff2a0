"""What Ray runs on blocks of rows: `read_pending`, `Decoder`, `Predictor`.

They are thin: each turns one block into another, row for row in the same order. Other modules do the work.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import schema, stage_seconds
from pipeline.cluster import metrics
from pipeline.config import RunConfig
from pipeline.engines import loading
from pipeline.engines.base import Engine, Scored
from pipeline.engines.batch_size_cache import BatchSizeCache
from pipeline.engines.batch_sizer import BatchSizer
from pipeline.engines.batching import MicroBatches
from pipeline.errors import ErrorCode, LakeLensError, RowError, StorageError
from pipeline.images.fetch import Fetcher, Request
from pipeline.images.options import DecodeOptions
from pipeline.images.pixels import DensePixels
from pipeline.images.sandbox import IsolatedDecoder
from pipeline.images.sandbox_processes import Report
from pipeline.models import int8 as quantized
from pipeline.models.model import resolve
from pipeline.output.layout import Layout
from pipeline.output.prediction_rows import PredictionRowBuilder
from pipeline.preprocessing import Preprocessing
from pipeline.stage_seconds import Seconds
from pipeline.storage import data_uris
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import DATA_PATTERN, is_data, redacted


def read_pending(files: pa.Table, storage: Storage) -> Iterator[pa.Table]:
    """Read pending files by their URIs: rows as `schema.PENDING` and kept columns, one row group at a time.

    Raises: StorageError.
    """
    for uri in files.column(schema.URI).to_pylist():
        data = storage.read(uri)
        if data is None:
            raise StorageError(f"{redacted(uri)}, a file of this run's plan, is gone. Run again.")
        rows = pq.ParquetFile(pa.BufferReader(data))
        yield from map(rows.read_row_group, range(rows.num_row_groups))


class Decoder:
    """Fetch and decode the images of pending rows. A row gets pixels, or a stage and an error code."""

    def __init__(self, config: RunConfig, steps: Preprocessing, run_id: str) -> None:
        self._metrics = metrics.DecoderMetrics(run_id)
        self._bytes_column = config.manifest.columns.bytes or schema.BYTES  # null: no row carries bytes
        self._fetch = Fetcher(Storage(config.storage), config.decode.max_bytes, config.fetch.patience_s)
        self._decoder = IsolatedDecoder(steps, DecodeOptions.from_config(config.decode))
        self.steps = steps

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Add the columns of `schema.DECODED` and `pixels` to `schema.PENDING` rows. Raises: ClusterError."""
        self._fetch_s = 0.0
        with self._metrics.block():
            found = self._decoded(rows)
        decode_s, waited_s = self._metrics.worked_s - self._fetch_s, self._metrics.waited_s
        return stage_seconds.attach(found, Seconds(fetch=self._fetch_s, decode=decode_s, decoder_waiting=waited_s))

    def _decoded(self, rows: pa.Table) -> pa.Table:
        fetched: list[tuple[str | None, int]] = []
        reports, pixels = self._decoder.decode(self._files(rows, fetched), rows.num_rows)
        tries = rows.column(schema.TRIES).to_pylist()
        decoded = [
            (*_facts(report, digest), (before or 0) + attempts)
            for report, (digest, attempts), before in zip(reports, fetched, tries, strict=True)
        ]
        columns = zip(*decoded, strict=True) if decoded else [()] * len(schema.DECODED)
        for field, column in zip(schema.DECODED, columns, strict=True):
            rows = rows.append_column(field, pa.array(column, field.type))
        rows = rows.set_column(
            rows.column_names.index(schema.URI), schema.PENDING.field(schema.URI), _kept_uris(rows)
        )
        return rows.append_column(schema.PIXELS, pixels.to_column())

    def _files(self, rows: pa.Table, fetched: list[tuple[str | None, int]]) -> Iterator[bytes | RowError]:
        """Give the bytes of every row as they arrive; append their SHA-256 and attempts to `fetched`."""
        size, asked_s = 0, time.monotonic()
        for file in self._fetch(_requests(rows, self._bytes_column)):
            self._fetch_s += time.monotonic() - asked_s
            digest = None
            if isinstance(file.data, bytes):
                size += len(file.data)
                digest = hashlib.sha256(file.data).hexdigest()
            fetched.append((digest, file.attempts))
            yield file.data
            asked_s = time.monotonic()
        self._metrics.fetched(size)


class Predictor:
    """Predict the images of decoded rows. Rows come out as `schema.PREDICTIONS`."""

    def __init__(
        self,
        config: RunConfig,
        weights_sha256: str,
        engine: str,
        threads: int,
        share: float,
        block_rows: int,
        run_id: str,
        output: str,
        load_engine: Callable[..., Engine] = loading.load_engine,
    ) -> None:
        """Load the model on this actor's device. A block has at most `block_rows` rows.

        The first call raises what goes wrong here: Ray would restart an actor that fails to start, and print why
        each time. `load_engine` takes the arguments of `loading.load_engine`.
        """
        self._config, self._run_id = config, run_id
        self._metrics = metrics.PredictorMetrics(run_id)
        self._failure: LakeLensError | None = None
        try:
            storage = Storage(config.storage)
            self._model = resolve(config.model, storage)
            self._model.require(weights_sha256)
            int8 = config.model.precision == quantized.INT8
            graph = quantized.fetch(Layout(output).int8_model, storage) if int8 else None
            settings = {"engine": engine, "top_k": config.labels.top_k, "threads": threads, "share": share}
            self._engine = load_engine(self._model, config.model, config.embedding, graph=graph, **settings)
            kind = (engine, self._engine.device, self._engine.precision, str(block_rows))
            self._known_sizes = BatchSizeCache(weights_sha256, self._model.architecture_sha256, *kind)
            largest = min(config.batching.max_batch_size, block_rows)
            self._sizer = BatchSizer(largest, self._known_sizes.load())
        except LakeLensError as error:
            self._failure = error

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Add labels and the embedding, and drop the pixels. Raises: EngineError, ModelError."""
        if self._failure is not None:
            raise self._failure
        with self._metrics.block():
            found = self._predicted(rows)
        took = Seconds(predict=self._metrics.worked_s, predictor_waiting=self._metrics.waited_s)
        failed = found[schema.OUTCOME].to_pylist().count(schema.FAILED)
        by_outcome = {schema.OK: found.num_rows - failed, schema.FAILED: failed}
        self._metrics.scored(by_outcome, self._sizer.propose(), self._sizer.too_large)
        self._known_sizes.store(self._sizer.settled)
        return stage_seconds.attach(found, stage_seconds.total([rows]) + took)

    def _predicted(self, rows: pa.Table) -> pa.Table:
        steps = self._model.preprocessing
        pixels = DensePixels.from_rows(rows, steps.height, steps.width).images
        normalize = self._config.embedding.normalize
        outputs = PredictionRowBuilder(rows.drop_columns([schema.PIXELS]), self._model.labels, normalize=normalize)
        for scored in self._scored(pixels):
            if scored is not None:
                outputs.add(scored.indices, scored.scores, scored.embeddings)
            else:
                outputs.add_failed(ErrorCode.OUT_OF_MEMORY, "the device cannot hold even this one image")
        return outputs.table(self._run_id)

    def _scored(self, pixels: NDArray[np.uint8]) -> MicroBatches[Scored]:
        """Predict all images in order, in micro-batches. None stands for one image that does not fit."""

        def start(first: int, end: int) -> Callable[[], Scored]:
            return self._engine.start(pixels[first:end])

        return MicroBatches(len(pixels), self._sizer, start, self._engine.in_flight)


def _facts(report: Report | RowError, digest: str | None) -> tuple[Any, ...]:
    """Return the values of `schema.DECODED` without the attempts."""
    if isinstance(report, RowError):
        return None, None, digest, [], report.stage.value, report.code.value, report.message
    return report.width, report.height, digest, list(report.notes), None, None, None


def _kept_uris(rows: pa.Table) -> pa.ChunkedArray:
    """Return the URIs as the output keeps them: a data URI, which holds the image itself, becomes its hash."""
    uris = rows.column(schema.URI)
    if not pc.any(pc.match_substring_regex(uris, DATA_PATTERN)).as_py():
        return uris
    kept = [data_uris.hashed(uri) if is_data(uri) else uri for uri in uris.to_pylist()]
    return pa.chunked_array([pa.array(kept, pa.string())])


def _requests(rows: pa.Table, bytes_column: str) -> list[Request]:
    names = (schema.URI, schema.OFFSET, schema.LENGTH, schema.CARRIED_IN, schema.ROW)
    uri, offset, length, carried_in, row = (rows.column(name).to_pylist() for name in names)
    columns = zip(uri, offset, length, carried_in, row, repeat(bytes_column, len(uri)), strict=True)
    return [Request(*values) for values in columns]
