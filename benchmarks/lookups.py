"""What readers read to find one image, or the images of one label: `python -m benchmarks.lookups [--s3]`.

It writes tables of made-up rows in some layouts, and asks each of them with DuckDB, Polars, delta-rs and LakeLens.
Ids are in the order of the files, as in a listed lake, or random, as where they are hashes. Where they are in
order, so are the labels, as in a lake with a folder for each class. A lookup opens the table anew, in a process
that has opened it before. Its bytes on S3 are those that the server sends, headers included. On disk they are
those of the process's read calls, which miss what a reader maps into memory.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid5

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, QueryBuilder

from benchmarks.counted import counting
from pipeline import schema
from pipeline.output import prediction_rows
from pipeline.output.file_statistics import FileStatistics
from pipeline.output.fragment import Fragment
from pipeline.output.fragment_files import by_id, write_file
from pipeline.output.layout import PREDICTIONS, fragment_path
from pipeline.output.reader import PredictionsReader
from pipeline.output.table import Predictions
from pipeline.storage.filesystems import Storage
from tests.support import seaweed

LABELS = 1000
NAMESPACE = UUID(int=0)


@dataclass(frozen=True)
class Layout:
    """How files are written. `options` are those of pyarrow's writer; None writes as LakeLens does."""

    name: str
    options: dict[str, object] | None
    in_order: bool = False
    statistics: bool = False


BLOOM = {"bloom_filter_options": {"image_id": {"ndv": prediction_rows.ROW_GROUP_ROWS, "fpp": 0.01}}}
INDEX: dict[str, object] = {"write_page_index": True}
LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("before", {}),
        Layout("statistics", {}, statistics=True),
        Layout("sorted", {}, in_order=True, statistics=True),
        Layout("index", INDEX, in_order=True, statistics=True),
        Layout("bloom", INDEX | BLOOM, in_order=True, statistics=True),
        Layout("after", None, in_order=True, statistics=True),
    )
}


@dataclass(frozen=True)
class Lake:
    """Rows and files of a table, and whether its ids and labels are in the order of the files."""

    rows: int
    files: int
    dim: int
    ordered: bool

    def identity(self, number: int) -> str:
        return f"s3://lake/images/{number:09}.jpg" if self.ordered else str(uuid5(NAMESPACE, str(number)))

    def label(self, number: int) -> str:
        place = number * LABELS // self.rows if self.ordered else number * 7919 % LABELS
        return f"class {place:04}"


def rows_of(lake: Lake, first: int, end: int) -> pa.Table:
    """Return the rows of one file, in an order as blocks have that finish when they finish."""
    rng = np.random.default_rng(first)
    numbers = rng.permutation(np.arange(first, end))
    count = len(numbers)
    ids = pa.array([lake.identity(int(number)) for number in numbers])
    labels = pa.array([lake.label(int(number)) for number in numbers])
    vectors = rng.standard_normal((count, lake.dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    vectors = vectors.astype(np.float16).astype(np.float32)
    made: dict[str, pa.Array] = {
        "image_id": ids,
        "uri": ids,
        "label": labels,
        "score": pa.array(rng.random(count, dtype=np.float32)),
        "embedding": pa.FixedSizeListArray.from_arrays(vectors.ravel(), lake.dim).cast(pa.list_(pa.float32())),
        "embedding_norm": pa.repeat(pa.scalar(1.0, pa.float32()), count),
        "width": pa.array(rng.integers(200, 4000, count, dtype=np.int32)),
        "height": pa.array(rng.integers(200, 4000, count, dtype=np.int32)),
        "content_sha256": pa.array([f"{value:064x}" for value in rng.integers(0, 2**62, count)]),
        "run_id": pa.repeat("20260101-000000-abcdef", count),
        "finished_at": pa.repeat(pa.scalar(1_700_000_000_000_000 + first, pa.timestamp("us", "UTC")), count),
    }
    columns = schema.fragment(schema.PREDICTIONS)
    return pa.table([made.get(one.name, pa.nulls(count, one.type)) for one in columns], columns)


def write(lake: Lake, layout: Layout, output: str, storage: Storage) -> Predictions:
    """Write a table, and return it as it is committed."""
    table = Predictions.create(output, storage, [])
    epoch = table.claim("one", [])
    assert epoch is not None
    edges = np.linspace(0, lake.rows, lake.files + 1, dtype=int)

    def written(number: int) -> Fragment:
        rows = rows_of(lake, int(edges[number]), int(edges[number + 1]))
        path = fragment_path("photos", schema.OK, epoch)
        if layout.options is None:
            return write_file(rows, by_id(rows), path, output=output, storage=storage)
        return _as_before(rows, layout, path, output, storage)

    with ThreadPoolExecutor(2) as pool:
        table.commit(list(pool.map(written, range(lake.files))), "one", epoch)
    return table


def _as_before(rows: pa.Table, layout: Layout, path: str, output: str, storage: Storage) -> Fragment:
    buffer = pa.BufferOutputStream()
    rows = rows.take(by_id(rows)) if layout.in_order else rows
    with pq.ParquetWriter(
        buffer,
        rows.schema,
        compression="zstd",
        use_dictionary=prediction_rows.DICTIONARY,
        column_encoding=dict.fromkeys(prediction_rows.SPLIT, "BYTE_STREAM_SPLIT"),
        **layout.options,
    ) as writer:
        writer.write_table(rows, row_group_size=prediction_rows.ROW_GROUP_ROWS)
    data = buffer.getvalue().to_pybytes()
    storage.write(f"{output}/{PREDICTIONS}/{path}", data)
    found = FileStatistics.of(rows) if layout.statistics else FileStatistics()
    return Fragment(path, "photos", schema.OK, rows.num_rows, len(data), found)


@dataclass(frozen=True)
class Lookup:
    """The rows whose `column` has this value, and how many there are."""

    name: str
    column: str
    value: str
    columns: Sequence[str]
    rows: int

    @property
    def condition(self) -> str:
        return f"{self.column} = '{self.value}'"

    @property
    def selected(self) -> str:
        return ", ".join(self.columns)


Reader = Callable[[str, Storage, Lookup], int]
"""(output, storage, lookup) to the number of rows found."""


def by_duckdb(output: str, storage: Storage, lookup: Lookup) -> int:
    """All files below the table; through fsspec where it is on S3."""
    with duckdb.connect() as connection:
        if "://" in output:
            connection.register_filesystem(storage.filesystem(output)[0])
        rows = f"read_parquet('{output}/{PREDICTIONS}/*/*/*.parquet')"
        query = f"SELECT {lookup.selected} FROM {rows} WHERE {lookup.condition}"
        return connection.sql(query).to_arrow_table().num_rows


def by_polars(output: str, storage: Storage, lookup: Lookup) -> int:
    """All files below the table."""
    options = storage.delta_options(output) or None
    return _found(pl.scan_parquet(f"{output}/{PREDICTIONS}/*/*/*.parquet", storage_options=options), lookup)


def by_polars_delta(output: str, storage: Storage, lookup: Lookup) -> int:
    """The files that the log names."""
    options = storage.delta_options(output) or None
    return _found(pl.scan_delta(f"{output}/{PREDICTIONS}", storage_options=options), lookup)


def _found(rows: pl.LazyFrame, lookup: Lookup) -> int:
    return rows.filter(pl.col(lookup.column) == lookup.value).select(lookup.columns).collect().height


def by_delta(output: str, storage: Storage, lookup: Lookup) -> int:
    """delta-rs's own SQL, which is DataFusion's."""
    table = DeltaTable(f"{output}/{PREDICTIONS}", storage_options=storage.delta_options(output) or None)
    query = f"SELECT {lookup.selected} FROM t WHERE {lookup.condition}"
    return pa.table(QueryBuilder().register("t", table).execute(query).read_all()).num_rows


def by_lakelens(output: str, storage: Storage, lookup: Lookup) -> int:
    """As `open_space` reads."""
    found = PredictionsReader.open(output, storage)
    return found.to_arrow(lookup.columns, where=lookup.condition).num_rows


READERS: dict[str, Reader] = {
    "DuckDB": by_duckdb,
    "Polars": by_polars,
    "Polars scan_delta": by_polars_delta,
    "delta-rs": by_delta,
    "LakeLens": by_lakelens,
}


def lookups(lake: Lake) -> list[Lookup]:
    """One id and one label, which is that of a thousandth of the rows."""
    wanted = lake.rows * 2 // 3 + 7
    return [
        Lookup("id", "image_id", lake.identity(wanted), ["image_id", "label", "score", "embedding"], 1),
        Lookup("label", "label", lake.label(wanted), ["image_id", "score"], lake.rows // LABELS),
    ]


def read_calls() -> int:
    """Return the bytes of this process's read calls so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def measured(output: str, storage: Storage, lookup: Lookup, counted: Callable[[], int], repeats: int) -> list[str]:
    """Return a line for each reader: the median time of its lookups, and the bytes of the last one."""
    lines = []
    for name, read in READERS.items():
        times, size = [], 0
        for _ in range(repeats + 1):
            before, start = counted(), time.perf_counter()
            found = read(output, storage, lookup)
            times.append(time.perf_counter() - start)
            size = counted() - before
            if found != lookup.rows:
                raise AssertionError(f"{name} found {found} rows of {lookup.rows}.")
        lines.append(
            f"{lookup.name:6} {name:18} {statistics.median(times[1:]) * 1000:8.0f} ms {size / 1e6:9.2f} MB"
        )
    return lines


@contextmanager
def place(s3: bool, folder: Path) -> Iterator[tuple[str, Storage, Callable[[], int]]]:
    """Where tables are written, and how to count what is read of them."""
    if not s3:
        yield str(folder), Storage(), read_calls
        return
    with seaweed.running(folder) as server, counting(server.endpoint_url) as (endpoint, counted):
        server.filesystem().mkdir("lookups")
        os.environ.update(server.environment | {"AWS_ENDPOINT_URL": endpoint})
        yield "s3://lookups", Storage(), counted


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=32)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layouts", default="before,after", help=", ".join(LAYOUTS))
    parser.add_argument("--s3", action="store_true", help="on a SeaweedFS server of this machine")
    given = parser.parse_args()
    with TemporaryDirectory() as scratch, place(given.s3, Path(scratch)) as (root, storage, counted):
        for ordered in (True, False):
            lake = Lake(given.rows, given.files, given.dim, ordered)
            for name in given.layouts.split(","):
                output = f"{root}/{name}-{ordered}"
                size = sum(file.size for file in write(lake, LAYOUTS[name], output, storage).visible_files())
                print(f"{'ordered' if ordered else 'random'} ids, {name}: {size / 1e6:,.0f} MB", flush=True)
                for lookup in lookups(lake):
                    print(*measured(output, storage, lookup, counted, given.repeats), sep="\n", flush=True)
                storage.filesystem(root)[0].rm(output, recursive=True)


if __name__ == "__main__":
    main()
