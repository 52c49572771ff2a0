"""The text of a CSV or JSON lines file: decompressed and decoded. It does not know the two formats."""

import gzip
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, TextIO, cast

import pyarrow as pa

from pipeline.errors import LakeLensError, ManifestError
from pipeline.storage.filesystems import Storage, failure
from pipeline.storage.uris import redacted

BATCH_ROWS = 65_536
"""Rows of JSON or Parquet that are in memory at once."""
BATCH_CHARS = 1 << 24
"""Characters of JSON that are in memory at once, about: a batch may have fewer rows for it."""
BLOCK_CHARS = 1 << 22
"""Characters of CSV that are in memory at once; the row in which they end is read whole."""
BUFFER_BYTES = 1 << 20
_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Rows:
    """Rows of text, column by column. `lines` has the number of the line in which each row begins, from 1.

    Bytes that are not UTF-8 are lone surrogates. An empty CSV value is None.
    """

    columns: Mapping[str, list[str | None] | pa.Array]
    lines: Sequence[int]


class TextError(Exception):
    """A line that cannot be read, and the reason."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")


@contextmanager
def opened(uri: str, storage: Storage, newline: str) -> Iterator[TextIO]:
    """Open a text file: UTF-8 with or without a byte order mark, UTF-16 or UTF-32 with one, each also with gzip.

    Bytes that cannot be decoded become lone surrogates, so that they cost one value and not the file. `newline` is
    that of `open`. Raises: ManifestError with the file, and with the line of a TextError; StorageError.
    """
    fs, path = storage.filesystem(uri)
    try:
        with fs.open(path, "rb") as raw:
            stream = io.BufferedReader(cast(io.RawIOBase, raw), BUFFER_BYTES)
            if stream.peek(2)[:2] == _GZIP:
                stream = io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=stream)), BUFFER_BYTES)
            encoding, errors = _encoding(stream)
            yield io.TextIOWrapper(cast(IO[bytes], stream), encoding, errors, newline)
    except LakeLensError:
        raise
    except (TextError, *_DAMAGED) as error:
        raise ManifestError(f"Cannot read the manifest {redacted(uri)}: {_reason(error)}.") from error
    except Exception as error:
        raise failure(error, uri) from error


_DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, UnicodeError)


def _encoding(stream: "io.BufferedReader[Any]") -> tuple[str, str]:
    """Return the encoding by the byte order mark, and the error handler for decoding. Raises: TextError."""
    start = stream.peek(4)[:4]
    for mark, name in _MARKS.items():
        if start.startswith(mark):
            return name, "surrogatepass"
    if b"\0" in start:
        raise TextError(1, "it holds zero bytes; if it is UTF-16, save it with a byte order mark, or as UTF-8")
    return "utf-8-sig", "surrogateescape"


def _reason(error: Exception) -> str:
    if isinstance(error, TextError):
        return str(error)
    if isinstance(error, UnicodeError):
        return "its text is cut short or damaged; write the file again"
    return "its gzip data is cut short or damaged; write the file again"
