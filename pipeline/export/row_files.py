"""A stream of rows as numbered files. A file is there as a whole or not at all."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline.export import json_values
from pipeline.export.request import VECTOR, Format
from pipeline.export.summary import ExportedFile, Written
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import join

Write = Callable[[pa.RecordBatch], None]


class FileKind(Protocol):
    """How rows become files. `number` tells the files of a folder apart."""

    def names(self, number: str) -> tuple[str, ...]:
        """Return the paths of the files with this number, below their folder."""
        ...

    def opened(self, folder: str, number: str, columns: pa.Schema) -> AbstractContextManager[Write]:
        """Open the files, and give what writes rows to them. They are there when the context has ended."""
        ...


class RowFiles:
    """Writes rows to files of `rows_per_file` rows in a folder. The last file may have fewer.

    `folder` is a path below `out`, or "". The numbers begin with `first`, and are `digits` wide.
    """

    def __init__(
        self, kind: FileKind, out: str, folder: str, *, rows_per_file: int, digits: int, first: int = 0
    ) -> None:
        self.written = Written()
        self._kind, self._out, self._folder = kind, out, folder
        self._rows_per_file, self._digits, self._next = rows_per_file, digits, first
        self._open = ExitStack()
        self._rows = 0
        self._write: Write | None = None

    def __enter__(self) -> "RowFiles":
        return self

    def __exit__(self, *raised: object) -> None:
        if raised[0] is None:
            self._close()
        else:
            self._open.__exit__(*raised)  # type: ignore[arg-type]

    def write(self, batch: pa.RecordBatch) -> None:
        """Write rows. Raises: StorageError."""
        while batch.num_rows:
            if self._write is None:
                number = f"{self._next:0{self._digits}}"
                folder = join(self._out, self._folder) if self._folder else self._out
                self._write = self._open.enter_context(self._kind.opened(folder, number, batch.schema))
            some = batch.slice(0, self._rows_per_file - self._rows)
            self._write(some)
            self._rows += some.num_rows
            if self._rows == self._rows_per_file:
                self._close()
            batch = batch.slice(some.num_rows)

    def _close(self) -> None:
        """Finish the open file, if there is one."""
        if self._write is None:
            return
        self._open.close()
        for name in self._kind.names(f"{self._next:0{self._digits}}"):
            path = f"{self._folder}/{name}" if self._folder else name
            self.written.files.append(ExportedFile(path=path, rows=self._rows))
        self.written.rows += self._rows
        self._next, self._rows, self._write = self._next + 1, 0, None


def digits_for(files: int) -> int:
    """Return the width of the numbers of so many files: as clip-retrieval has it, 1 for one file, 2 for ten."""
    return len(str(max(files, 1)))


def kind_of(to: Format, storage: Storage) -> FileKind:
    """Return how rows become files of a format."""
    if to is Format.JSONL:
        return JsonLines(storage)
    return ClipRetrieval(storage) if to is Format.NPY else ParquetFiles(storage)


@dataclass(frozen=True)
class ParquetFiles:
    """Parquet files, compressed with zstd. Each batch that is written becomes a row group.

    Vectors are encoded plainly: not every importer knows the smaller encoding of the predictions table.
    """

    storage: Storage

    def names(self, number: str) -> tuple[str, ...]:
        """Return the path of the file."""
        return (f"{number}.parquet",)

    @contextmanager
    def opened(self, folder: str, number: str, columns: pa.Schema) -> Iterator[Write]:
        """Open the file. Raises: StorageError."""
        with self.storage.replacing(join(folder, *self.names(number))) as file:
            text = [field.name for field in columns if pa.types.is_string(field.type)]
            with pq.ParquetWriter(file, columns, compression="zstd", use_dictionary=text) as writer:
                yield writer.write_batch


@dataclass(frozen=True)
class JsonLines:
    """One JSON object a line, in UTF-8."""

    storage: Storage

    def names(self, number: str) -> tuple[str, ...]:
        """Return the path of the file."""
        return (f"{number}.jsonl",)

    @contextmanager
    def opened(self, folder: str, number: str, columns: pa.Schema) -> Iterator[Write]:
        """Open the file. Raises: StorageError."""
        with (
            self.storage.replacing(join(folder, *self.names(number))) as path,
            path.open("w", encoding="utf-8", newline="\n") as file,
        ):
            yield lambda batch: file.writelines(f"{line}\n" for line in json_values.lines(batch))


@dataclass(frozen=True)
class ClipRetrieval:
    """The layout of clip-retrieval: float16 vectors as npy, the other columns in the same order as Parquet."""

    storage: Storage

    def names(self, number: str) -> tuple[str, ...]:
        """Return the paths of the vectors and of the other columns."""
        return f"img_emb/img_emb_{number}.npy", f"metadata/metadata_{number}.parquet"

    @contextmanager
    def opened(self, folder: str, number: str, columns: pa.Schema) -> Iterator[Write]:
        """Open both files. The vector is the last of the columns. Raises: StorageError."""
        vectors, metadata = (join(folder, name) for name in self.names(number))
        names = columns.names[:-1]
        with (
            self.storage.replacing(vectors) as npy_path,
            self.storage.replacing(metadata) as parquet_path,
            npy_path.open("wb") as npy_file,
            pq.ParquetWriter(parquet_path, pa.schema([columns.field(name) for name in names])) as writer,
        ):
            rows = _NpyRows(npy_file)

            def write(batch: pa.RecordBatch) -> None:
                rows.add(vectors_of(batch))
                writer.write_batch(batch.select(names))

            yield write
            rows.finish()


class _NpyRows:
    """Writes a float16 matrix row by row. Its header is written again at the end, with the number of rows."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._rows, self._dim = file, 0, 0

    def add(self, vectors: NDArray[np.float32]) -> None:
        if not self._rows:
            self._dim = vectors.shape[1]
            self._write_header()
        self._rows += len(vectors)
        self._file.write(vectors.astype("<f2").tobytes())

    def finish(self) -> None:
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        """Write the header, which has the same length for every number of rows: numpy leaves room for growth."""
        shape = (self._rows, self._dim)
        npy.write_array_header_1_0(self._file, {"descr": "<f2", "fortran_order": False, "shape": shape})


def vectors_of(batch: pa.RecordBatch) -> NDArray[np.float32]:
    """Return the vectors of rows as float32 (B, D)."""
    values: NDArray[np.float32] = batch[VECTOR].flatten().to_numpy(zero_copy_only=False)
    return values.reshape(batch.num_rows, -1)
