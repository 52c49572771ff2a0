"""Statistics of a file's columns, as the Delta log holds them: readers skip files that cannot have their rows.

A bound is left out where it could be wrong, because a wrong one hides rows from readers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from math import copysign, isfinite
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as kinds

from pipeline import schema

COLUMNS = 32
"""Columns that have statistics: the first ones of a file, as many as other writers of Delta tables take."""
TEXT_CHARACTERS = 32
"""Characters of a bound of text after what the least and the greatest text of a file have in common."""
TEXT_LIMIT = 256
"""Characters of a bound of text at most."""
_LEFT_OUT = frozenset({"embedding_norm", "content_sha256", "message", "attempts", schema.VERSION})
"""Columns by which no reader skips files: each file has values of the whole range, or nobody asks for one."""
_LAST_CHARACTER = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)

Bound = str | int | float
"""A value as Delta's JSON has it; bool is an int."""


@dataclass(frozen=True)
class FileStatistics:
    """Bounds and counts of nulls by column. A column without values, or with unknown bounds, has no bounds."""

    low: Mapping[str, Bound] = field(default_factory=dict)
    high: Mapping[str, Bound] = field(default_factory=dict)
    nulls: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: pa.Table) -> "FileStatistics":
        """Compute the statistics of the rows of one file. Nested columns have none."""
        columns = {name: rows[name] for name in statistics_columns(rows.schema)}
        bounds = {name: _bounds(column) for name, column in columns.items()}
        return cls(
            {name: low for name, (low, _) in bounds.items() if low is not None},
            {name: high for name, (_, high) in bounds.items() if high is not None},
            {name: column.null_count for name, column in columns.items()},
        )

    def delta(self, rows: int) -> dict[str, Any]:
        """Return the statistics of a file with this number of rows as Delta's log has them."""
        found = {"minValues": self.low, "maxValues": self.high, "nullCount": self.nulls}
        return {"numRecords": rows} | {name: dict(of) for name, of in found.items() if of}


def statistics_columns(file: pa.Schema) -> list[str]:
    """Return the columns of a file that have statistics."""
    eligible = (one for one in file if not kinds.is_nested(one.type) and one.name not in _LEFT_OUT)
    return [one.name for one in eligible][:COLUMNS]


def _bounds(column: pa.ChunkedArray) -> tuple[Bound | None, Bound | None]:
    """Return bounds that hold for every reader, whatever its rules about NaN, zeros and precision."""
    bounds_of = next((found for matches, found in _KINDS if matches(column.type)), None)
    if bounds_of is None or column.null_count == len(column):
        return None, None
    if kinds.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py():
        return None, None  # readers disagree whether NaN is the least or the greatest value
    try:
        found = pc.min_max(column).as_py()
    except (OverflowError, ValueError):  # Python has no such date
        return None, None
    return bounds_of(found["min"], found["max"])


def _text(low: str, high: str) -> tuple[Bound, Bound | None]:
    differs = next((at for at, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    length = min(differs + TEXT_CHARACTERS, TEXT_LIMIT)
    return low[:length], high if len(high) <= length else _above(high[:length])


def _above(prefix: str) -> str | None:
    """Return a text that is greater than every text with this prefix, in the order of UTF-8. None if none is."""
    for end in range(len(prefix), 0, -1):
        after = ord(prefix[end - 1]) + 1
        if after in _SURROGATES:
            after = _SURROGATES.stop
        if after <= _LAST_CHARACTER:
            return prefix[: end - 1] + chr(after)
    return None


def _floats(low: float, high: float) -> tuple[Bound | None, Bound | None]:
    """JSON has no infinity. Some readers order -0.0 before 0.0."""
    low, high = copysign(low, -1) if low == 0 else low, abs(high) if high == 0 else high
    return low if isfinite(low) else None, high if isfinite(high) else None


def _decimals(low: Decimal, high: Decimal) -> tuple[Bound | None, Bound | None]:
    """A number in JSON passes through floating point in some readers, which must not move the bound."""
    return _decimal(low), _decimal(high)


def _decimal(value: Decimal) -> Bound | None:
    found = int(value) if value == int(value) else float(value)
    plain = abs(value) < 10**15 and "e" not in repr(found)
    return found if plain and Decimal(repr(found)) == value else None


def _times(low: Any, high: Any) -> tuple[Bound | None, Bound | None]:
    """Delta has milliseconds here. Not every reader knows that a bound may have been rounded down."""
    millisecond = timedelta(milliseconds=1)
    try:
        high += -timedelta(microseconds=high.microsecond) % millisecond
    except OverflowError:
        return _time(low), None
    return _time(low), _time(high)


def _time(value: Any) -> str:
    return str(value.isoformat(timespec="milliseconds")).replace("+00:00", "Z")


_KINDS: list[tuple[Callable[[pa.DataType], bool], Callable[[Any, Any], tuple[Bound | None, Bound | None]]]] = [
    (lambda kind: kinds.is_string(kind) or kinds.is_large_string(kind), _text),
    (kinds.is_floating, _floats),
    (kinds.is_decimal, _decimals),
    (lambda kind: kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")), _times),
    (kinds.is_date, lambda low, high: (low.isoformat(), high.isoformat())),
    (lambda kind: kinds.is_integer(kind) or kinds.is_boolean(kind), lambda low, high: (low, high)),
]
"""How the bounds of a type are written. Binary values have no bounds in JSON."""
