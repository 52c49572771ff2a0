"""CSV (RFC 4180) to rows of text. The separator comes from the header line, not from a sample of rows.

Python's strict reader decides where a row ends: it reports a quote that is never closed, where other readers lose
all rows after it. A block of lines without quotes needs no decision, and pyarrow reads it ten times as fast.
"""

import csv
import io
import itertools
import re
from collections.abc import Collection, Iterator
from typing import TextIO

import pyarrow as pa
import pyarrow.csv

from pipeline.planning.text import BLOCK_CHARS, Rows, TextError

SEPARATORS = ",;\t|"
VALUE_CHARS = 1 << 28
"""Longest value that is read, so that a quote that is never closed cannot fill the memory."""
_NO_SEPARATOR, _UNUSED = "\0", "\x1f"
"""Separators for a list of one column: a character that no file name has, and one that pyarrow accepts."""
_QUOTED = re.compile(r'"(?:[^"]|"")*"?')


def rows(text: TextIO, wanted: Collection[str]) -> Iterator[Rows]:
    """Yield the rows of a CSV file in batches, the first of which is empty. Blank lines are not rows.

    The separator is the one that splits the header line into most of the `wanted` columns, which are in lower
    case. Raises: TextError.
    """
    csv.field_size_limit(VALUE_CHARS)
    names, separator, line = _header(text, wanted)
    yield Rows({name: [] for name in names}, [])
    while block := _block(text, line):
        found = _plain(block, names, separator)
        if found is not None:
            yield Rows(found, range(line, line + len(found[names[0]])))
            line += len(found[names[0]])
        else:
            batch, lines = _strict(block, text, names, separator, line)
            yield batch
            line += lines


def _block(text: TextIO, line: int) -> str:
    """Return the next characters up to a line end; `line` is the number of the first line. Raises: TextError."""
    block, rest = text.read(BLOCK_CHARS), text.readline(VALUE_CHARS)
    if len(rest) == VALUE_CHARS and rest[-1] not in "\r\n":
        raise TextError(line + block.count("\n"), _TOO_LONG.format(VALUE_CHARS))
    return block + rest


_TOO_LONG = "a value in it is longer than {:,} characters; is a closing quote or a line end missing?"


def _header(text: TextIO, wanted: Collection[str]) -> tuple[list[str], str, int]:
    """Return the columns' names, the separator, and the number of the next line. Raises: TextError."""
    first, line = _first_line(text)
    separator = _separator(first, wanted)
    if re.fullmatch(r"(?i)sep=.[\r\n]*", first):  # Excel writes the separator so
        separator = first[4]
        first, further = _first_line(text)
        line += further
    reader = csv.reader(itertools.chain([first], text), delimiter=separator, strict=True)
    try:
        return _names(next(reader, []), wanted, line), separator, line + reader.line_num
    except csv.Error as error:
        raise TextError(line, _reason(str(error))) from error


def _plain(block: str, names: list[str], separator: str) -> dict[str, pa.Array] | None:
    """Return the columns of a block of whole lines; None if only the strict reader can tell its rows."""
    blank = block[0] in "\r\n" or "\n\n" in block or "\n\r\n" in block
    special = any(char in block for char in ('"', _UNUSED, _NO_SEPARATOR)) or block[0] == "\ufeff"
    if blank or special or block.count("\r") != block.count("\r\n") or not separator.isascii():
        return None
    separator = _UNUSED if separator == _NO_SEPARATOR else separator
    try:
        data = block.encode("utf-8", "surrogateescape")
        table = pyarrow.csv.read_csv(
            io.BytesIO(data),
            pyarrow.csv.ReadOptions(column_names=names, block_size=len(data) + 1),
            pyarrow.csv.ParseOptions(delimiter=separator, quote_char=False),
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
            ),
        ).combine_chunks()
    except (pa.ArrowInvalid, UnicodeEncodeError):  # not UTF-8, too many or too few values
        return None
    if table.num_rows != block.count("\n") + (not block.endswith("\n")):
        return None
    return {name: column.chunk(0) for name, column in zip(names, table.columns, strict=True)}


def _strict(block: str, text: TextIO, names: list[str], separator: str, line: int) -> tuple[Rows, int]:
    """Return the rows of a block, and the number of lines that they take; the last row may go on behind the block.

    `line` is the number of the block's first line. Raises: TextError.
    """
    own = list(io.StringIO(block, newline=""))
    reader = csv.reader(itertools.chain(own, text), delimiter=separator, strict=True)
    values, lines, begun = list[list[str]](), list[int](), 0
    try:
        for row in reader:
            if row:
                if len(row) != len(names):
                    raise TextError(line + begun, _misfit(len(row), len(names)))
                values.append(row)
                lines.append(line + begun)
            begun = reader.line_num
            if begun >= len(own):
                break
    except csv.Error as error:
        raise TextError(line + begun, _reason(str(error))) from error
    columns = zip(*values, strict=True) if values else ([] for _ in names)
    return Rows({n: [v or None for v in column] for n, column in zip(names, columns, strict=True)}, lines), begun


def _first_line(text: TextIO) -> tuple[str, int]:
    """Return the first line that is not blank, and its number. Raises: TextError."""
    for number, line in enumerate(text, 1):
        if line.strip():
            return line, number
    raise TextError(1, "there is no header line; name the columns there, as in uri,dataset")


def _separator(header: str, wanted: Collection[str]) -> str:
    def fits(separator: str) -> tuple[int, int]:
        cells = next(csv.reader([header], delimiter=separator))
        return len({*wanted} & {cell.strip().casefold() for cell in cells}), len(cells)

    found = [separator for separator in SEPARATORS if separator in _QUOTED.sub("", header)]
    return max(found, key=fits) if found else _NO_SEPARATOR


def _names(header: list[str], wanted: Collection[str], line: int) -> list[str]:
    """Return the columns' names without blanks around them, each of them unique whatever its letter case.

    `wanted` is in lower case. Raises: TextError for a wanted name that appears twice.
    """
    names: list[str] = []
    for number, cell in enumerate(header):
        # Bytes that are not UTF-8 cannot be printed.
        name = cell.strip().encode("utf-8", "surrogatepass").decode("utf-8", "replace") or f"column{number}"
        twin = next((other for other in names if other.casefold() == name.casefold()), None)
        if twin is not None and name.casefold() in wanted:
            raise TextError(line, f"there are two columns {twin!r} and {name!r}; rename one of them")
        if twin is not None:
            name = next(other for n in itertools.count(1) if (other := f"{name}_{n}") not in (*names, *header))
        names.append(name)
    return names


def _misfit(values: int, columns: int) -> str:
    return (
        f"the row has {values} value{'s' * (values != 1)}, but the header names {columns} "
        f"column{'s' * (columns != 1)}; quote a value that holds the separator"
    )


def _reason(said: str) -> str:
    if said == "unexpected end of data":
        return "the quote that opens in it is never closed"
    if "expected after" in said:
        return 'text follows a closing quote; write a quote inside a quoted value twice ("")'
    if "field larger than" in said:
        return _TOO_LONG.format(VALUE_CHARS)
    return said
