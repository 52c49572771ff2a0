"""The only Ray callables: `Decoder`, `Predictor`, `write_fragments`.

Thin: each turns one block into another, row for row in the same order, by the modules that do the work.
"""

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray

from pipeline import engines, schema
from pipeline.batching import BatchSizer
from pipeline.config import RunConfig
from pipeline.decode import decode
from pipeline.errors import ErrorCode, LakeLensError, OutOfMemory, RowError, StorageError
from pipeline.fetch import Request, fetch
from pipeline.model import resolve
from pipeline.outputs import Outputs, parquet_bytes
from pipeline.preprocessing import Preprocessing
from pipeline.storage import Storage, join
from pipeline.table import FOLDER, Fragment, fragment_path

FETCH_WINDOW = 32
"""Images whose bytes are fetched at once, while those before them are decoded."""
WRITES = 8
"""Fragments of one group of blocks that are written at once: a lake can have many small datasets."""
EXAMPLES = 3
"""Failed rows of a fragment that are named if the run is stopped for its failures."""


class Decoder:
    """Pending rows -> the same rows with pixels, or with a stage and a code. One block in, one block out."""

    def __init__(self, config: RunConfig, steps: Preprocessing) -> None:
        self._config = config.decode
        self._storage = Storage(config.storage)
        self._steps = steps
        self._ahead = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fetch")

    def __call__(self, rows: pa.Table) -> pa.Table:
        """`rows` as `schema.PENDING`; adds the columns of `schema.DECODED` and `pixels`."""
        height, width = self._steps.height, self._steps.width
        pixels = np.zeros((rows.num_rows, height, width, 3), dtype=np.uint8)
        decoded = [self._decode(data, pixels[index]) for index, data in enumerate(self._fetched(_requests(rows)))]
        columns = zip(*decoded, strict=True) if decoded else [()] * len(schema.DECODED)
        for name, column in zip(schema.DECODED.names, columns, strict=True):
            rows = rows.append_column(
                schema.DECODED.field(name), pa.array(column, schema.DECODED.field(name).type)
            )
        return rows.append_column(schema.PIXELS, _as_column(pixels))

    def _fetched(self, requests: list[Request]) -> Iterator[bytes | RowError]:
        """Bytes in order; the next window is on its way while one is decoded."""
        ahead: Future[list[bytes | RowError]] | None = None
        for start in range(0, len(requests) + FETCH_WINDOW, FETCH_WINDOW):
            window = requests[start : start + FETCH_WINDOW]
            coming = self._ahead.submit(fetch, window, self._storage, self._config.max_bytes)
            yield from ahead.result() if ahead else ()
            ahead = coming

    def _decode(self, data: bytes | RowError, target: NDArray[np.uint8]) -> tuple[Any, ...]:
        """Decode into `target`; returns the values of `schema.DECODED`."""
        digest = None
        try:
            if isinstance(data, RowError):
                raise data
            digest = hashlib.sha256(data).hexdigest()
            image = decode(data, self._steps, self._config)
        except RowError as error:
            return None, None, digest, [], error.stage.value, error.code.value, error.message, 1
        target[:] = image.pixels
        return image.width, image.height, digest, list(image.notes), None, None, None, 1


class Predictor:
    """Decoded rows -> `schema.PREDICTIONS` rows. One block in, one block out."""

    def __init__(self, config: RunConfig, weights_sha256: str, engine: str, threads: int, run_id: str) -> None:
        """Load the model on this actor's device. What goes wrong is raised by the first call: Ray restarts
        an actor that fails to start, and prints why each time."""
        self._config, self._run_id = config, run_id
        self._sizer = BatchSizer(max_size=config.batching.max_batch_size)
        self._failure: LakeLensError | None = None
        try:
            self._model = resolve(config.model, Storage(config.storage))
            self._model.require(weights_sha256)
            self._engine = engines.load(
                self._model,
                config.model,
                config.embedding,
                engine=engine,
                top_k=config.labels.top_k,
                threads=threads,
            )
        except LakeLensError as error:
            self._failure = error

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Adds the labels and the embedding; drops the pixels. Raises: EngineError, ModelError."""
        if self._failure is not None:
            raise self._failure
        steps = self._model.preprocessing
        pixels = _as_array(rows.column(schema.PIXELS), steps.height, steps.width)
        normalize = self._config.embedding.normalize
        outputs = Outputs(rows.drop_columns([schema.PIXELS]), self._model.labels, normalize=normalize)
        pixels = pixels if len(outputs.decoded) == len(pixels) else pixels[outputs.decoded]
        start = 0
        while start < len(pixels):
            batch = pixels[start : start + self._sizer.propose()]
            scored = self._predict(batch)
            if scored is not None:
                outputs.add(scored.indices, scored.scores, scored.embeddings)
            elif len(batch) == 1:
                outputs.add_failed(ErrorCode.OUT_OF_MEMORY, "the device cannot hold even this one image")
            else:
                continue  # the same images again, in a smaller batch
            start += len(batch)
        return outputs.table(self._run_id)

    def _predict(self, batch: NDArray[np.uint8]) -> engines.Scored | None:
        """One micro-batch; None if it did not fit."""
        started = time.perf_counter()
        try:
            scored = self._engine.predict(batch)
        except OutOfMemory:
            self._sizer.out_of_memory(len(batch))
            return None
        self._sizer.done(len(batch), time.perf_counter() - started)
        return scored


@ray.remote(num_cpus=0, max_retries=3, retry_exceptions=[StorageError])  # type: ignore[untyped-decorator]
def write_fragments(*blocks: pa.Table, output: str, storage: Storage, epoch: int) -> list[Fragment]:
    """Write `schema.PREDICTIONS` rows as one Parquet file for each dataset and outcome; not visible yet.

    Raises: StorageError. A task that is run again writes files of other names, and only the last are named.
    """
    rows = pa.concat_tables(blocks, promote_options="default")
    groups = rows.select(list(schema.PARTITIONS)).group_by(list(schema.PARTITIONS)).aggregate([]).to_pylist()

    def write(group: dict[str, str]) -> Fragment:
        dataset, outcome = group[schema.DATASET], group[schema.OUTCOME]
        mine = pc.and_(pc.equal(rows[schema.DATASET], dataset), pc.equal(rows[schema.OUTCOME], outcome))
        fragment = rows.filter(mine).drop_columns(list(schema.PARTITIONS))
        path = fragment_path(dataset, outcome, epoch)
        data = parquet_bytes(fragment)
        storage.write(join(output, FOLDER, path), data)
        return Fragment(path, dataset, outcome, fragment.num_rows, len(data), _examples(fragment))

    with ThreadPoolExecutor(max_workers=WRITES) as pool:
        return list(pool.map(write, groups))


def _examples(group: pa.Table) -> tuple[str, ...]:
    first = group.slice(0, EXAMPLES).select([schema.URI, "error_code"]).to_pylist()
    return tuple(f"{row[schema.URI]}: {row['error_code']}" for row in first if row["error_code"])


def _requests(rows: pa.Table) -> list[Request]:
    columns = (rows.column(name).to_pylist() for name in (schema.URI, schema.OFFSET, schema.LENGTH))
    return [Request(*values) for values in zip(*columns, strict=True)]


def _as_column(pixels: NDArray[np.uint8]) -> pa.Array:
    """uint8 (B, H, W, 3) as an Arrow column of fixed-size binary, without a copy."""
    count, height, width, _ = pixels.shape
    return pa.Array.from_buffers(schema.pixels_type(height, width), count, [None, pa.py_buffer(pixels)])


def _as_array(column: pa.ChunkedArray, height: int, width: int) -> NDArray[np.uint8]:
    """The inverse of `_as_column`; without a copy while the column is in one piece."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    flat = np.frombuffer(array.buffers()[1], dtype=np.uint8)
    size = height * width * 3
    return flat[array.offset * size :][: len(array) * size].reshape(len(array), height, width, 3)
