"""What Ray runs on blocks of rows: `read_pending`, `Decoder`, `Predictor`.

They are thin: each turns one block into another, row for row in the same order. Other modules do the work.
"""

import threading
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schema, stage_seconds
from pipeline.cluster import metrics
from pipeline.config import RunConfig
from pipeline.engines import loading
from pipeline.engines.base import Engine, Scored
from pipeline.engines.batch_size_cache import BatchSizeCache
from pipeline.engines.batch_sizer import BatchSizer
from pipeline.engines.feeder import Fed, Feeder
from pipeline.errors import ErrorCode, LakeLensError, StorageError
from pipeline.images.pixels import DensePixels
from pipeline.images.reader import ImageReader
from pipeline.models import int8 as quantized
from pipeline.models.model import resolve
from pipeline.output.layout import Layout
from pipeline.output.prediction_rows import PredictionRowBuilder
from pipeline.preprocessing import Preprocessing
from pipeline.stage_seconds import Seconds
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import redacted


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
        self._reader = ImageReader(config, steps)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Add the columns of `schema.DECODED` and `pixels` to `schema.PENDING` rows. Raises: ClusterError."""
        with self._metrics.block():
            block = self._reader.read(rows)
            found = block.table()
        self._metrics.fetched(block.fetched_bytes)
        decode_s, waited_s = self._metrics.worked_s - block.fetch_s, self._metrics.waited_s
        seconds = Seconds(fetch=block.fetch_s, decode=decode_s, decoder_waiting=waited_s)
        return stage_seconds.attach(found, seconds)


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
        self._metrics, self._lock = metrics.PredictorMetrics(run_id), threading.Lock()
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
            self._feeder = Feeder(self._engine.start, self._sizer, self._engine.in_flight)
        except LakeLensError as error:
            self._failure = error

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Add labels and the embedding, and drop the pixels. Several threads may call this.

        Raises: EngineError, ModelError.
        """
        if self._failure is not None:
            raise self._failure
        steps = self._model.preprocessing
        fed = self._feeder.feed(DensePixels.from_rows(rows, steps.height, steps.width).images)
        normalize = self._config.embedding.normalize
        outputs = PredictionRowBuilder(rows.drop_columns([schema.PIXELS]), self._model.labels, normalize=normalize)
        for scored in fed:
            if scored is not None:
                outputs.add(scored)
            else:
                outputs.add_failed(ErrorCode.OUT_OF_MEMORY, "the device cannot hold even this one image")
        found = outputs.table(self._run_id)
        self._note(found, fed)
        took = Seconds(predict=fed.worked_s, predictor_waiting=fed.waited_s)
        return stage_seconds.attach(found, stage_seconds.total([rows]) + took)

    def _note(self, found: pa.Table, fed: Fed[Scored]) -> None:
        failed = pc.sum(pc.equal(found[schema.OUTCOME], schema.FAILED)).as_py() or 0
        by_outcome = {schema.OK: found.num_rows - failed, schema.FAILED: failed}
        with self._lock:
            self._metrics.measured(fed.worked_s, fed.waited_s)
            self._metrics.scored(by_outcome, self._sizer.propose(), self._sizer.too_large)
            self._known_sizes.store(self._sizer.settled)
