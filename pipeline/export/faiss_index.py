"""A FAISS index of all vectors, and a Parquet file with the other columns of its rows.

The id of a vector in the index is the number of its row in `rows.parquet`, from 0. FAISS holds an index in the
memory of one process, so this process builds it, however many machines a cluster has.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from pipeline.errors import ConfigError, SpaceError
from pipeline.export.request import VECTOR, OnProgress, Request
from pipeline.export.row_files import ParquetFiles, vectors_of
from pipeline.export.summary import ExportedFile, Written
from pipeline.output.reader import PredictionsReader
from pipeline.storage.uris import join

INDEX, ROWS = "index.faiss", "rows"
FLAT_ROWS = 50_000
"""Rows up to which the index is flat: exact, and a query takes some ten milliseconds."""
SAMPLED = 50
"""Vectors that each list of the index is trained on. FAISS warns below 39."""
ITERATIONS = 10
"""Iterations of k-means; FAISS's 25 give the same recall."""
GROWTH = 1.5
"""Memory of an index while it is built, in its own sizes: each list grows ahead of what it holds."""
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Plan:
    """The kind of index for so many vectors of `dim` numbers. The metric is the inner product.

    `lists` is 0 for a flat index in float32. A larger one has inverted lists of vectors in float16, which is the
    precision of embeddings. A query reads `probes` of these lists.
    """

    rows: int
    dim: int
    lists: int
    probes: int

    @classmethod
    def of(cls, rows: int, dim: int, flat_rows: int = FLAT_ROWS) -> "Plan":
        """Choose the kind of index: flat up to `flat_rows`, otherwise about √rows lists."""
        lists = 0 if rows <= flat_rows else 2 ** math.ceil(math.log2(math.sqrt(rows)))
        return cls(rows, dim, lists, max(16, lists // 32) if lists else 0)

    @property
    def name(self) -> str:
        """The name of the index in FAISS's index factory."""
        return f"IVF{self.lists},SQfp16" if self.lists else "IDMap2,Flat"

    @property
    def size(self) -> int:
        """Bytes of the finished index, in memory as on disk: vectors, ids and centroids."""
        vector = self.dim * (2 if self.lists else 4)
        return self.rows * (vector + 8) + self.lists * self.dim * 4

    @property
    def peak(self) -> int:
        """Bytes that building the index takes."""
        return int(self.size * GROWTH) + SAMPLED * self.lists * self.dim * 4

    def described(self) -> dict[str, Any]:
        """Return what `export.json` says about the index."""
        found = {"factory": self.name, "metric": "inner_product", "bytes": self.size}
        return found | ({"nprobe": self.probes} if self.lists else {})

    def require_memory(self) -> None:
        """Check that this process can hold the index. Raises: ConfigError."""
        free = _free_memory()
        if self.peak > free:
            raise ConfigError(
                f"Building a FAISS index of {self.rows:,} vectors with {self.dim} dimensions takes "
                f"{self.peak / 1e9:,.1f} GB of memory, but {free / 1e9:,.1f} GB are free. Choose fewer rows with "
                "--where or --dataset, or make an index on disk with lakelens index."
            )


def write(
    reader: PredictionsReader,
    request: Request,
    columns: Sequence[str],
    out: str,
    *,
    flat_rows: int = FLAT_ROWS,
    on_progress: OnProgress = lambda done, rows: None,
) -> tuple[Plan, Written]:
    """Build the index of the vectors and write it. Return its kind, and what was written.

    Raises: ConfigError without FAISS, an optional package, or if there is not enough memory; SpaceError if there
    are no rows; TableError, StorageError.
    """
    faiss = _faiss()
    rows = reader.count(request.where)
    plan = Plan.of(rows, _dimension(reader, request), flat_rows)
    plan.require_memory()
    index = faiss.index_factory(plan.dim, plan.name, faiss.METRIC_INNER_PRODUCT)
    if plan.lists:
        index.nprobe, index.cp.niter = plan.probes, ITERATIONS
        index.by_residual = False  # an embedding is exact in float16, its distance from a centroid is not
        index.train(_sample(reader, request, plan))
    others = [name for name in columns if name != VECTOR]
    kind = ParquetFiles(reader.storage)
    with kind.opened(out, ROWS, reader.schema(others)) as write_rows:
        for batch in reader.batches([*others, VECTOR], where=request.where):
            index.add_with_ids(vectors_of(batch), np.arange(index.ntotal, index.ntotal + batch.num_rows))
            write_rows(batch.select(others))
            on_progress(index.ntotal, rows)
    with reader.storage.replacing(join(out, INDEX)) as file:
        faiss.write_index(index, str(file))
    return plan, Written(rows, [ExportedFile(path=path, rows=rows) for path in (INDEX, *kind.names(ROWS))])


def _sample(reader: PredictionsReader, request: Request, plan: Plan) -> NDArray[np.float32]:
    """Draw vectors to train on by the hashes of their ids: float32, (about `SAMPLED` × lists, D)."""
    drawn = f"hash(image_id) % {plan.rows} < {SAMPLED * plan.lists}"
    where = drawn if request.where is None else f"({request.where}\n) AND {drawn}"
    return np.concatenate([vectors_of(batch) for batch in reader.batches([VECTOR], where=where)])


def _dimension(reader: PredictionsReader, request: Request) -> int:
    """Return the length of a vector. Raises: SpaceError if there are no rows."""
    for batch in reader.batches([VECTOR], where=request.where, batch_rows=1):
        return int(vectors_of(batch).shape[1])
    raise SpaceError(f"{reader.output} has no rows to make an index of.")


def _faiss() -> Any:
    try:
        import faiss  # an optional package
    except ImportError as error:
        raise ConfigError(
            "An export to FAISS needs faiss-cpu, which is not installed: pip install 'lakelens[faiss]'."
        ) from error
    return faiss


def _free_memory() -> int:
    """Return the bytes of memory that this process may still take: the machine's, or its container's."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        held = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return free
    return free if limit == "max" else min(free, int(limit) - int(held["anon"]))
