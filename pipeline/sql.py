"""Values as parts of an SQL statement for DuckDB."""

import re
from collections.abc import Iterable


def literal(value: str) -> str:
    """A string as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def literals(values: Iterable[str]) -> str:
    """Strings as an SQL list."""
    return "[" + ", ".join(map(literal, values)) + "]"


def quoted(column: str) -> str:
    """A column name as an SQL identifier."""
    return '"' + column.replace('"', '""') + '"'


def files(uris: Iterable[str]) -> str:
    """Files as the SQL list that DuckDB's readers take. They would take a name with brackets for a pattern."""
    return literals(re.sub(r"[*?\[]", r"[\g<0>]", uri) for uri in uris)
