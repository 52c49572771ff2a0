"""Refuse manifest files whose columns do not fit the config, with the columns that may be meant.

It does not know the config: it is given the names of columns, and the config keys that ask for them.
"""

from collections.abc import Iterable

import pyarrow as pa

from pipeline import columns
from pipeline.column_names import BYTES
from pipeline.errors import ManifestError
from pipeline.planning.manifest_file import ManifestFile
from pipeline.storage.uris import redacted

NAMED = 20
"""Columns that a message names at most."""
PREFIX = "_lakelens_"
"""The prefix of the columns that planning adds."""


def refuse_names(file: ManifestFile, requested: Iterable[str]) -> None:
    """Raises: ManifestError for columns that cannot be told from others, or from those that planning adds."""
    for name in file.schema.names:
        if name.casefold().startswith(PREFIX):
            raise ManifestError(
                f"The manifest {file.name} has a column {redacted(name)!r}, but names that begin with {PREFIX} "
                "belong to LakeLens; rename the column."
            )
    for path in filter(None, map(file.find, requested)):
        if file.is_parquet and (alike := columns.twins(file.schema, path)):
            raise _alike(file, alike)


def refuse_nested(file: ManifestFile, key: str, name: str) -> None:
    """Refuse a column of structs or lists where each row needs one value.

    `name` is the column, `key` the config key that names it, as in manifest.columns.uri. Raises: ManifestError.
    """
    path = file.find(name)
    if path is not None and pa.types.is_struct(file.kind(path)):
        raise _struct(file, key, name, file.kind(path))
    if lists := columns.lists_in(file.schema, name):
        raise _list(file, key, lists)


def lacking(file: ManifestFile, key: str, name: str) -> ManifestError:
    """Return the error for a column that a file lacks, with the columns that it has and the one that may be meant.

    `name` is the column, `key` the config key that names it.
    """
    alike = [other for other in file.schema.names if other.casefold() == name.casefold()]
    if len(alike) > 1:
        return _alike(file, alike)
    if lists := columns.lists_in(file.schema, name):
        return _list(file, key, lists)
    meant = columns.near(name, file.schema.names)
    if meant and meant != name:
        hint = f"did you mean {meant!r}? Then set {key}: {meant}"
    else:
        hint = f"set {key} to the column that holds the {'images' if key.endswith(BYTES) else 'values'}"
    names = [redacted(other) for other in file.schema.names[:NAMED]]
    have = ", ".join([*names, "…"] if len(file.schema.names) > NAMED else names) or "none"
    what = "binary column" if file.find(name) is not None else "column"
    return ManifestError(f"The manifest {file.name} has no {what} {name!r} ({key}). It has: {have}; {hint}.")


def _alike(file: ManifestFile, names: Iterable[str]) -> ManifestError:
    return ManifestError(
        f"The manifest {file.name} has the columns {' and '.join(map(repr, names))}, whose names are equal apart "
        "from letter case; rename one of them."
    )


def _struct(file: ManifestFile, key: str, name: str, kind: pa.DataType) -> ManifestError:
    fields = ", ".join(f"{name}.{field.name}" for field in kind)
    return ManifestError(
        f"The column {name!r} ({key}) of the manifest {file.name} is a struct; name one of its fields: {fields}."
    )


def _list(file: ManifestFile, key: str, name: str) -> ManifestError:
    return ManifestError(
        f"The manifest {file.name} holds lists in the column {name!r} ({key}); write one row for each image."
    )
