"""CSV after RFC 4180 -> rows of text. The header line tells the separator, not a sample of the rows.

The strict reader of Python's standard library tells what other readers pass over: a quote that is never closed
swallows all rows after it without an error there.
"""

import csv
import itertools
import re
import sys
from collections.abc import Collection, Iterator
from typing import TextIO

from pipeline.text import BATCH_CHARS, BATCH_ROWS, Rows, TextError

SEPARATORS = ",;\t|"
_NO_SEPARATOR = "\0"
"""For a list of one column: a character that no file name has."""
_QUOTED = re.compile(r'"(?:[^"]|"")*"?')


def rows(text: TextIO, wanted: Collection[str]) -> Iterator[Rows]:
    """The rows of a CSV file in batches, the first of which may be empty; blank lines are no rows.

    Of several separators that the header line could have, the one counts that gives most of the `wanted` columns.
    Raises: TextError.
    """
    csv.field_size_limit(sys.maxsize)
    header_line, skipped = _first_line(text)
    separator = _separator(header_line, wanted)
    if re.fullmatch(r"(?i)sep=.[\r\n]*", header_line):  # as Excel tells it
        separator, header_line, skipped = header_line[4], text.readline(), skipped + 1
    reader = csv.reader(itertools.chain([header_line], text), delimiter=separator, strict=True)
    begun = 0
    try:
        names = _names(next(reader, []), wanted)
        yield Rows({name: [] for name in names}, [])
        values, lines, chars, begun = list[list[str]](), list[int](), 0, reader.line_num
        for row in reader:
            if row:
                if len(row) != len(names):
                    raise TextError(skipped + begun + 1, _misfit(len(row), len(names)))
                values.append(row)
                lines.append(skipped + begun + 1)
                chars += sum(map(len, row))
            begun = reader.line_num
            if len(values) >= BATCH_ROWS or chars >= BATCH_CHARS:
                yield _batch(names, values, lines)
                values, lines, chars = [], [], 0
        if values:
            yield _batch(names, values, lines)
    except csv.Error as error:
        raise TextError(skipped + begun + 1, _reason(str(error))) from error


def _first_line(text: TextIO) -> tuple[str, int]:
    """The first line that is not blank, and how many are before it. Raises: TextError."""
    for before, line in enumerate(text):
        if line.strip():
            return line, before
    raise TextError(1, "there is no header line")


def _separator(header: str, wanted: Collection[str]) -> str:
    names = {name.casefold() for name in wanted}

    def fits(separator: str) -> tuple[int, int]:
        cells = next(csv.reader([header], delimiter=separator))
        return len(names & {cell.strip().casefold() for cell in cells}), len(cells)

    found = [separator for separator in SEPARATORS if separator in _QUOTED.sub("", header)]
    return max(found, key=fits) if found else _NO_SEPARATOR


def _names(header: list[str], wanted: Collection[str]) -> list[str]:
    """The columns' names: blanks around them do not count, and none is there twice.

    Raises: TextError for a wanted name that is there twice.
    """
    names: list[str] = []
    for number, cell in enumerate(header):
        # Bytes that are not UTF-8 cannot be printed.
        name = cell.strip().encode("utf-8", "surrogatepass").decode("utf-8", "replace") or f"column{number}"
        if name in names:
            if name in wanted:
                raise TextError(1, f"there are two columns {name!r}")
            name = next(other for n in itertools.count(1) if (other := f"{name}_{n}") not in (*names, *header))
        names.append(name)
    return names


def _batch(names: list[str], values: list[list[str]], lines: list[int]) -> Rows:
    columns = zip(*values, strict=True)
    return Rows({n: [v or None for v in column] for n, column in zip(names, columns, strict=True)}, lines)


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
    return said
