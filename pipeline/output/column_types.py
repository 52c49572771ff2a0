"""Schema evolution of kept columns: which values fit another type exactly, and the SQL that converts them.

Nothing is rounded, cut or guessed.

- A number fits another numeric type if converting it back gives the same number. Integers fit floating point only
  while every integer has its own floating-point number: up to 2^53, in single precision up to 2^24.
- A date fits a timestamp. A timestamp at midnight fits a date. Timestamps with and without a time zone do not mix.
- Text fits a type if it is written the way that type is printed.
- A text column takes every value as text, and binary values if they are UTF-8.
- A null fits every type.

Types have DuckDB's names.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from pipeline.errors import ManifestError
from pipeline.storage.sql import quoted
from pipeline.storage.uris import redacted

TEXT = "VARCHAR"
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
_WHOLE = {"FLOAT": 2**24, "DOUBLE": 2**53}
"""Up to this limit every integer has its own floating-point number."""
_DIGITS = {"FLOAT": 6, "DOUBLE": 15}
"""Significant decimal digits that survive a conversion to floating point and back."""
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_ZONED = "TIMESTAMP WITH TIME ZONE"
_NAMES = {
    **dict(zip(("tinyint", "smallint", "int", "bigint"), _INTEGERS, strict=True)),
    **{"float": "FLOAT", "double": "DOUBLE", "text": TEXT, "boolean": "BOOLEAN", "binary": "BLOB", "date": "DATE"},
    **{"timestamp": "TIMESTAMP", "timestamptz": _ZONED, "integer": "INTEGER", "string": TEXT, "varchar": TEXT},
}
"""Names of types for people. Messages use the first name of a type."""
TYPES = "it is int, bigint, double, decimal(p,s), timestamp or text"
_NUMBER = r"-?(0|[1-9][0-9]*)"
_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_SUGGESTED = ("BIGINT", "DOUBLE", "TIMESTAMP", TEXT)
"""Types that a message suggests: the first one that fits both the old and the new values."""
_SAME_IN_DELTA = re.compile(
    r"BOOLEAN|TINYINT|SMALLINT|INTEGER|BIGINT|FLOAT|DOUBLE|VARCHAR|BLOB|DATE|TIMESTAMP|DECIMAL\(.*\)"
    r"|TIMESTAMP WITH TIME ZONE"
)
"""Types of DuckDB that a column of the Delta table has unchanged."""


def table_type(kind: str) -> str:
    """Return the type of a manifest's kept column in the table.

    Delta has no unsigned types and few nested ones.
    """
    if _SAME_IN_DELTA.fullmatch(kind):
        return kind
    if kind.startswith("TIMESTAMP_"):  # of another unit; Delta has microseconds
        return "TIMESTAMP"
    return "BIGINT" if kind in ("UTINYINT", "USMALLINT", "UINTEGER") else "VARCHAR"


@dataclass(frozen=True)
class Conversion:
    """SQL expressions: `value` converts a column to another type, `fits` whether the value stays the same."""

    value: str
    fits: str

    @classmethod
    def of(cls, column: str, kind: str, target: str) -> "Conversion":
        """Return the conversion of `column`, an SQL expression of the type `kind`, to the type `target`."""
        cast = f"TRY_CAST({column} AS {target})"
        if kind == target:
            return cls(column, "true")
        if target == TEXT:
            text = f"TRY(decode({column}))" if kind == "BLOB" else f"CAST({column} AS {TEXT})"
            return cls(text, f"{text} IS NOT NULL")
        if kind == TEXT:
            return cls(f"encode({column})", "true") if target == "BLOB" else cls(cast, _written(column, target))
        if kind in _WHOLE and _DECIMAL.fullmatch(target):  # convert the printed digits: the binary value has more
            cast = f"TRY_CAST(CAST({column} AS {TEXT}) AS {target})"
            back = f"TRY_CAST({cast} AS {kind})"
            return cls(cast, f"{column} IS NULL OR {back} IS NOT DISTINCT FROM {column}")
        if _is_number(kind) and _is_number(target):
            return cls(cast, _comes_back(column, kind, target) + _within(column, kind, target))
        if {kind, target} == {"DATE", "TIMESTAMP"}:
            return cls(cast, _comes_back(column, kind, target))
        return cls(f"CAST(NULL AS {target})", "false")


@dataclass(frozen=True)
class KeptColumns:
    """Kept columns of a manifest in the types of the table: their fields, and the SQL that converts each one."""

    fields: list[pa.Field]
    values: dict[str, str]


def fit_kept_columns(
    connection: duckdb.DuckDBPyConnection, columns: Sequence[pa.Field], held: Iterable[pa.Field], output: str
) -> KeptColumns:
    """Convert the columns of the view `due` to the types that the output's table has for them.

    Only columns whose types differ are read. Raises: ManifestError for a value that does not fit its column.
    """
    there = {field.name.casefold(): field for field in held}
    wanted = [there.get(field.name.casefold(), field) for field in columns]
    for ours, its in zip(columns, wanted, strict=True):
        if ours.name != its.name:
            raise ManifestError(
                f"The kept column {ours.name!r} of the manifest is {its.name!r} in {output}. "
                "Rename it in the manifest."
            )
    targets = duckdb_types(wanted)
    changes = {
        name: (kind, targets[name]) for name, kind in duckdb_types(columns).items() if kind != targets[name]
    }
    for name, example in misfits(connection, "due", changes).items():
        raise ManifestError(_refusal(connection, name, changes[name], example, output))
    values = {name: Conversion.of(quoted(name), *change).value for name, change in changes.items()}
    return KeptColumns(wanted, {field.name: values.get(field.name, quoted(field.name)) for field in wanted})


def misfits(
    connection: duckdb.DuckDBPyConnection, rows: str, changes: dict[str, tuple[str, str]]
) -> dict[str, str]:
    """Map each column with a value that does not fit its new type to an example of such a value.

    `rows` is SQL for a FROM clause. `changes` maps columns to their old and new types.
    """
    if not changes:
        return {}
    found = connection.execute(
        "SELECT "
        + ", ".join(
            f"min({Conversion.of(quoted(name), kind, TEXT).value}) FILTER ({_unfit(name, kind, target)}), "
            f"count(*) FILTER ({_unfit(name, kind, target)})"
            for name, (kind, target) in changes.items()
        )
        + f" FROM {rows}"
    ).fetchone()
    assert found is not None
    pairs = zip(changes, found[::2], found[1::2], strict=True)
    return {
        name: "binary data" if example is None else redacted(example) for name, example, count in pairs if count
    }


def duckdb_types(fields: Sequence[pa.Field]) -> dict[str, str]:
    """Map the names of Arrow fields to DuckDB's names of their types."""
    if not fields:
        return {}
    with duckdb.connect() as connection:
        empty = connection.from_arrow(pa.schema(fields).empty_table())
        return dict(zip(empty.columns, map(str, empty.types), strict=True))


def arrow_fields(kinds: Mapping[str, str]) -> list[pa.Field]:
    """Return Arrow fields with these names and types: the inverse of `duckdb_types`."""
    columns = ", ".join(f"NULL::{kind} AS {quoted(name)}" for name, kind in kinds.items())
    with duckdb.connect() as connection:
        return list(connection.sql(f"SELECT {columns}").to_arrow_table().schema) if columns else []


def parse_type(name: str) -> str | None:
    """Return DuckDB's name of a type. Return None if a kept column cannot have this type."""
    if found := re.fullmatch(r"decimal\((\d+), ?(\d+)\)", name.casefold()):
        precision, scale = map(int, found.groups())
        return f"DECIMAL({precision},{scale})" if 1 <= precision <= 38 and scale <= precision else None
    return _NAMES.get(name.casefold())


def type_name(kind: str) -> str:
    """Return the name of a type for people."""
    return next((name for name, known in _NAMES.items() if known == kind), kind.lower())


def is_wider(target: str, kind: str) -> bool:
    """Tell whether a type is meant for all values of another one. A `Conversion` tells which fit exactly."""
    if kind == target or target == TEXT:
        return kind != target
    if kind in _INTEGERS:
        return target in (*_INTEGERS[_INTEGERS.index(kind) :], "DOUBLE") or _DECIMAL.fullmatch(target) is not None
    precisions = [_DECIMAL.fullmatch(one) for one in (kind, target)]
    if all(precisions):
        (p, s), (other_p, other_s) = (map(int, found.groups()) for found in precisions if found)
        return other_s >= s and other_p - other_s >= p - s
    return (kind, target) in (("FLOAT", "DOUBLE"), ("DATE", "TIMESTAMP")) or (
        target == "DOUBLE" and precisions[0] is not None
    )


def _refusal(
    connection: duckdb.DuckDBPyConnection, name: str, change: tuple[str, str], example: str, output: str
) -> str:
    """Return the message about a value that does not fit its column."""
    kind, held = change
    wider = (to for to in _SUGGESTED if is_wider(to, held) and not misfits(connection, "due", {name: (kind, to)}))
    misfit = f"{example} in the manifest does not fit it"
    said = f"The kept column {name!r} is {type_name(held)} in {output}, and {misfit}"
    to = next(wider, None)
    if to is None:
        return f"{said}. Rename the column in the manifest, or choose another output.path."
    command = shlex.join(["lakelens", "compact", output, "--widen", f"{name}={type_name(to)}"])
    return f"{said}. Widen the column with {command}"


def _unfit(name: str, kind: str, target: str) -> str:
    column = quoted(name)
    return f"WHERE {column} IS NOT NULL AND ({Conversion.of(column, kind, target).fits}) IS NOT TRUE"


def _is_number(kind: str) -> bool:
    """Booleans count as the numbers 0 and 1."""
    return kind in (*_INTEGERS, *_WHOLE, "BOOLEAN") or _DECIMAL.fullmatch(kind) is not None


def _comes_back(column: str, kind: str, target: str) -> str:
    return f"TRY_CAST(TRY_CAST({column} AS {target}) AS {kind}) = {column}"


def _within(column: str, kind: str, target: str) -> str:
    """Return the condition that integers are small enough for floating point to tell them apart."""
    if target not in _WHOLE or kind in (*_WHOLE, "BOOLEAN"):
        return ""
    return f" AND {column} BETWEEN {-_WHOLE[target]} AND {_WHOLE[target]}"


def _written(column: str, target: str) -> str:
    """Return the condition that text is written the way a type is printed."""
    cast = f"TRY_CAST({column} AS {target})"
    if target in _WHOLE:
        digits = f"length(replace(ltrim({column}, '-'), '.', '')) <= {_DIGITS[target]}"
        plain = rf"regexp_full_match({column}, '{_NUMBER}(\.[0-9]+)?') AND {digits}"
        return f"CAST({cast} AS {TEXT}) = {column} OR ({plain} AND {cast} IS NOT NULL)"
    return f"regexp_full_match({column}, '{_pattern(target)}') AND {cast} IS NOT NULL"


def _pattern(target: str) -> str:
    """Return a regular expression for the values of a type as text, without superfluous digits."""
    if found := _DECIMAL.fullmatch(target):
        return rf"{_NUMBER}(\.[0-9]{{0,{found[2]}}}0*)?"
    return {
        "BOOLEAN": "(?i)true|false",
        "DATE": _DAY,
        "TIMESTAMP": f"{_DAY}([ T]{_TIME})?",
        _ZONED: rf"{_DAY}[ T]{_TIME}(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)",
    }.get(target, rf"{_NUMBER}(\.0+)?")
