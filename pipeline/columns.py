"""Find a column that a config names in the schema of a file. It does not know what the columns mean."""

import difflib
from collections.abc import Iterable

import pyarrow as pa

Path = tuple[str, ...]
"""A column, and the fields below it that lead into a struct, as the file spells them."""


def find(schema: pa.Schema, name: str) -> Path | None:
    """Find a column by its whole name, or by `column.field` in a struct. None if there is none.

    The spelling that is given comes first; else letter case does not count, where that leaves one column. A dot
    may also be part of a name.
    """
    return _find(list(schema), name)


def twins(schema: pa.Schema, path: Path) -> list[str]:
    """Columns or fields beside those of a path whose names differ from them in letter case only, or not at all.

    SQL cannot tell them apart.
    """
    fields, found = list(schema), list[str]()
    for name in path:
        alike = [field for field in fields if field.name.casefold() == name.casefold()]
        found += [field.name for field in alike] if len(alike) > 1 else []
        kind = _values(alike[0].type)
        fields = list(kind) if pa.types.is_struct(kind) else []
    return found


def type_at(schema: pa.Schema, path: Path) -> pa.DataType:
    """The type of what a path leads to; of a dictionary or an extension, that of its values."""
    kind = pa.struct(list(schema))
    for name in path:
        kind = _values(kind.field(kind.get_field_index(name)).type)
    return kind


def lists_in(schema: pa.Schema, name: str) -> str | None:
    """The first column on the way to `name` that holds lists; None if there is none."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        path = find(schema, ".".join(parts[:end]))
        if path is not None and _is_list(type_at(schema, path)):
            return ".".join(path)
    return None


def near(name: str, names: Iterable[str]) -> str | None:
    """The column that may be meant by a name that is not there."""
    plain = {_bare(other): other for other in reversed(list(names))}
    if _bare(name) in plain:
        return plain[_bare(name)]
    close = difflib.get_close_matches(_bare(name), plain, n=1, cutoff=0.8)
    return plain[close[0]] if close else None


def _find(fields: list[pa.Field], name: str) -> Path | None:
    for dot in [len(name), *reversed([at for at, char in enumerate(name) if char == "."])]:
        field = _named(fields, name[:dot])
        if field is None:
            continue
        if dot == len(name):
            return (field.name,)
        kind = _values(field.type)
        rest = _find(list(kind), name[dot + 1 :]) if pa.types.is_struct(kind) else None
        if rest is not None:
            return (field.name, *rest)
    return None


def _named(fields: list[pa.Field], name: str) -> pa.Field | None:
    exact = [field for field in fields if field.name == name]
    alike = exact or [field for field in fields if field.name.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else None


def _values(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.UuidType):
        return _values(kind.storage_type)
    return _values(kind.value_type) if pa.types.is_dictionary(kind) else kind


def _is_list(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_map)
    return any(check(kind) for check in lists)


def _bare(name: str) -> str:
    """Without what people write in different ways: letter case, blanks, hyphens, underscores."""
    return "".join(char for char in name.casefold() if char.isalnum()) or name
