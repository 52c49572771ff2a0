"""Pending rows -> the same rows with their pixels, or with an error: fetch and decode, without Ray.

It reports to no one: each block comes with its figures, and a worker passes them on.
"""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.config import RunConfig
from pipeline.errors import RowError
from pipeline.images.fetch import Fetched, Fetcher, Request
from pipeline.images.options import DecodeOptions
from pipeline.images.pixels import DensePixels
from pipeline.images.sandbox import IsolatedDecoder
from pipeline.images.sandbox_processes import Report
from pipeline.preprocessing import Preprocessing
from pipeline.storage import data_uris
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import DATA_PATTERN, is_data


@dataclass(frozen=True)
class ReadBlock:
    """A block that was read: `rows` with the columns of `schema.DECODED`, and the pixels of rows without an error.

    `fetch_s`: seconds in which decoding waited for bytes. `fetched_bytes`: bytes of the images that arrived.
    """

    rows: pa.Table
    pixels: DensePixels
    fetch_s: float
    fetched_bytes: int

    def table(self) -> pa.Table:
        """Return the rows with their pixels as the last column."""
        return self.rows.append_column(schema.PIXELS, self.pixels.to_column())


class ImageReader:
    """Fetches and decodes the images of blocks of rows, in a child process of its own. Not safe for threads."""

    def __init__(self, config: RunConfig, steps: Preprocessing) -> None:
        """Start the child process; it gets ready while the caller continues."""
        # Without a name for the column no row points into a manifest, so the default is not looked up.
        self._bytes_column = config.manifest.columns.bytes or schema.BYTES
        self._fetch = Fetcher(Storage(config.storage), config.decode.max_bytes, config.fetch.patience_s)
        self._decoder = IsolatedDecoder(steps, DecodeOptions.from_config(config.decode))

    def read(self, rows: pa.Table) -> ReadBlock:
        """Read the images of `rows`, which have the columns of `schema.PENDING`; the order stays.

        Every failure of an image is a row with an error. Raises: ClusterError if no child process can be started.
        """
        arrivals = _Arrivals()
        files = arrivals.of(self._fetch(_requests(rows, self._bytes_column)))
        reports, pixels = self._decoder.decode(files, rows.num_rows)
        tries = rows.column(schema.TRIES).to_pylist()
        facts = [
            (*_facts(report, digest), (before or 0) + attempts)
            for report, digest, attempts, before in zip(
                reports, arrivals.digests, arrivals.attempts, tries, strict=True
            )
        ]
        columns = zip(*facts, strict=True) if facts else [()] * len(schema.DECODED)
        for added, column in zip(schema.DECODED, columns, strict=True):
            rows = rows.append_column(added, pa.array(column, added.type))
        place = rows.column_names.index(schema.URI)
        rows = rows.set_column(place, schema.PENDING.field(schema.URI), _kept_uris(rows))
        return ReadBlock(rows, pixels, arrivals.waited_s, arrivals.size)

    def close(self) -> None:
        """End the child process."""
        self._decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class _Arrivals:
    """Facts about files, noted as they arrive: hashes, attempts, bytes, and the seconds of waiting for them."""

    digests: list[str | None] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    size: int = 0
    waited_s: float = 0.0

    def of(self, fetched: Iterator[Fetched]) -> Iterator[bytes | RowError]:
        """Pass the data of every file on."""
        asked_s = time.monotonic()
        for file in fetched:
            self.waited_s += time.monotonic() - asked_s
            digest = None
            if isinstance(file.data, bytes):
                self.size += len(file.data)
                digest = hashlib.sha256(file.data).hexdigest()
            self.digests.append(digest)
            self.attempts.append(file.attempts)
            yield file.data
            asked_s = time.monotonic()


def _requests(rows: pa.Table, bytes_column: str) -> list[Request]:
    names = (schema.URI, schema.OFFSET, schema.LENGTH, schema.CARRIED_IN, schema.ROW)
    uri, offset, length, carried_in, row = (rows.column(name).to_pylist() for name in names)
    places = zip(uri, offset, length, carried_in, row, strict=True)
    return [Request(*place, column=bytes_column) for place in places]


def _facts(report: Report | RowError, digest: str | None) -> tuple[Any, ...]:
    """Return the values of `schema.DECODED`, except for the attempts."""
    if isinstance(report, RowError):
        return None, None, digest, [], report.stage.value, report.code.value, report.message
    return report.width, report.height, digest, list(report.notes), None, None, None


def _kept_uris(rows: pa.Table) -> pa.ChunkedArray:
    """Return the URIs as the output keeps them: of a `data:` URI, which is the image itself, only a hash."""
    uris = rows.column(schema.URI)
    if not pc.any(pc.match_substring_regex(uris, DATA_PATTERN)).as_py():
        return uris
    kept = [data_uris.hashed(uri) if is_data(uri) else uri for uri in uris.to_pylist()]
    return pa.chunked_array([pa.array(kept, pa.string())])
