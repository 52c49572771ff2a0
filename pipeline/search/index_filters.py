"""Conditions in DuckDB's SQL as conditions for Lance, where both surely mean the same.

Lance evaluates conditions with DataFusion, whose SQL differs: it divides integers as integers, for instance. So a
condition is parsed by DuckDB, and only comparisons of a column with a value are translated. Exact search takes
every other condition.
"""

import json
from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.storage.sql import literal

_COMPARED = {
    "COMPARE_EQUAL": "=",
    "COMPARE_NOTEQUAL": "<>",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
}
_LIKE = {"~~": "LIKE", "!~~": "NOT LIKE"}
_VALUES = {
    "STRING": (pa.types.is_string, pa.types.is_large_string),
    "INTEGER": (pa.types.is_integer, pa.types.is_floating),
    "NUMERIC": (pa.types.is_floating,),
    "BOOLEAN": (pa.types.is_boolean,),
}
"""The types of columns that a value of each kind is compared with."""


class OnlyExactError(Exception):
    """The index cannot answer this query, but exact search can."""


def pushed_down(where: str, fields: pa.Schema) -> str:
    """Translate an SQL condition on columns of the index. Raises: OnlyExactError."""
    with duckdb.connect() as connection:
        query = f"SELECT 1 FROM predictions WHERE ({where}\n)"
        ((text,),) = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
    try:
        (statement,) = json.loads(text)["statements"]
        return _condition(statement["node"]["where_clause"], fields)
    except (KeyError, ValueError, TypeError) as error:  # not SQL, several statements, or a tree of another DuckDB
        raise OnlyExactError(where) from error


def among(column: str, values: Sequence[str]) -> str:
    """Return the condition that a column has one of these values."""
    return f"{_quoted(column)} IN ({', '.join(map(literal, values))})"


def _condition(node: dict[str, Any], fields: pa.Schema) -> str:
    kind = node["type"]
    if kind in ("CONJUNCTION_AND", "CONJUNCTION_OR"):
        word = f" {kind.removeprefix('CONJUNCTION_')} "
        return f"({word.join(_condition(child, fields) for child in node['children'])})"
    if kind == "OPERATOR_NOT":
        (child,) = node["children"]
        return f"(NOT {_condition(child, fields)})"
    return _predicate(kind, node, fields)


def _predicate(kind: str, node: dict[str, Any], fields: pa.Schema) -> str:
    if kind in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
        (child,) = node["children"]
        return f"({_column(child, fields)[0]} {kind.removeprefix('OPERATOR_').replace('_', ' ')})"
    if kind == "COMPARE_IN":
        column, *values = _operands(node["children"], fields)
        return f"({column} IN ({', '.join(values)}))"
    if kind == "COMPARE_BETWEEN":
        column, low, high = _operands([node["input"], node["lower"], node["upper"]], fields)
        return f"({column} BETWEEN {low} AND {high})"
    if kind == "FUNCTION":
        column, pattern = _operands([one["expression"] for one in node["arguments"]], fields)
        if "\\" in pattern:  # escapes only in DataFusion
            raise OnlyExactError(pattern)
        return f"({column} {_LIKE[node['function_name']]} {pattern})"
    column, value = _operands([node["left"], node["right"]], fields)
    return f"({column} {_COMPARED[kind]} {value})"


def _operands(nodes: Sequence[dict[str, Any]], fields: pa.Schema) -> list[str]:
    """Return a column, and the values that it is compared with."""
    column, held = _column(nodes[0], fields)
    return [column, *(_value(node, held) for node in nodes[1:])]


def _column(node: dict[str, Any], fields: pa.Schema) -> tuple[str, pa.DataType]:
    (name,) = node["column_names"]
    (found,) = [field for field in fields if field.name.casefold() == name.casefold()]
    return _quoted(found.name), found.type


def _value(node: dict[str, Any], held: pa.DataType) -> str:
    kind, text = node["literal"]["kind"], node["literal"]["text"]
    if not any(check(held) for check in _VALUES[kind]):
        raise OnlyExactError(text)
    return literal(text) if kind == "STRING" else str(text)


def _quoted(column: str) -> str:
    if "`" in column:
        raise OnlyExactError(column)
    return f"`{column}`"
