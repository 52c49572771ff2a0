"""Rows as the bulk importers of vector databases take them. `docs/export.md` names the sources of their rules.

An importer takes Parquet files by the names of their columns: an id, the vector, and everything else as one JSON
object of text.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.errors import ConfigError
from pipeline.export import json_values
from pipeline.export.request import VECTOR, Format, Importer, Request
from pipeline.storage.uris import redacted

Shape = Callable[[pa.RecordBatch], pa.RecordBatch]
IMAGE_PATH = "image_path"
"""The name that clip-retrieval has for the URI of an image."""

_ID_CHARS, _METADATA_BYTES = 512, 40 * 1024
"""Pinecone: characters of an id, which are ASCII, and bytes of one row's metadata."""
_MILVUS_BYTES = 65_536
"""Milvus: bytes of a text field and of the dynamic field."""


def read_columns(request: Request, columns: Sequence[str]) -> list[str]:
    """Return the columns to read from the table, so that `shape` makes the columns of the export from them."""
    needed: list[str] = []
    if request.importer is not None or request.to in (Format.NPY, Format.FAISS):
        needed = [VECTOR]
    if request.to is Format.NPY:
        needed.append(schema.URI)
    return [*dict.fromkeys([*columns, *needed])]


def id_column(request: Request) -> str:
    """Return the name of the column with the id of a row, which a file of deletes has, too."""
    return schema.IMAGE_ID if request.importer is None else "id"


def shape(request: Request, columns: Sequence[str]) -> Shape:
    """Return what makes rows of the export from rows of the table."""
    metadata = [name for name in columns if name not in (schema.IMAGE_ID, VECTOR)]
    if request.importer is Importer.PINECONE:
        return lambda batch: _for_pinecone(batch, metadata)
    if request.importer is Importer.MILVUS:
        return lambda batch: _for_milvus(batch, metadata)
    if request.to is Format.NPY:
        return lambda batch: _for_clip_retrieval(batch, columns)
    return lambda batch: batch.select(columns)


def _for_pinecone(batch: pa.RecordBatch, metadata: Sequence[str]) -> pa.RecordBatch:
    """Columns id, values, metadata. Metadata has neither nulls nor nested values, which become text."""
    ids = batch[schema.IMAGE_ID].to_pylist()
    texts = [json_values.text(_flat(row)) if row else None for row in _objects(batch, metadata)]
    for id_, text in zip(ids, texts, strict=True):
        if len(id_) > _ID_CHARS or not id_.isascii() or "\0" in id_:
            raise _refused("Pinecone", id_, f"takes ids of at most {_ID_CHARS} characters, all of them ASCII")
        if text is not None and len(text.encode()) > _METADATA_BYTES:
            raise _refused("Pinecone", id_, f"takes at most {_METADATA_BYTES} bytes of metadata for a row")
    arrays = [batch[schema.IMAGE_ID], batch[VECTOR], pa.array(texts, pa.string())]
    return pa.RecordBatch.from_arrays(arrays, names=["id", "values", "metadata"])


def _for_milvus(batch: pa.RecordBatch, metadata: Sequence[str]) -> pa.RecordBatch:
    """Columns id, vector, and the dynamic field $meta: the fields of a collection that Milvus sets up quickly."""
    ids = batch[schema.IMAGE_ID].to_pylist()
    texts = [json_values.text(row) for row in _objects(batch, metadata)]
    for id_, text in zip(ids, texts, strict=True):
        if max(len(id_.encode()), len(text.encode())) >= _MILVUS_BYTES:
            raise _refused("Milvus", id_, f"takes less than {_MILVUS_BYTES} bytes of an id, and of other columns")
    arrays = [batch[schema.IMAGE_ID], batch[VECTOR], pa.array(texts, pa.string())]
    return pa.RecordBatch.from_arrays(arrays, names=["id", "vector", "$meta"])


def _for_clip_retrieval(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    """Column image_path, then the others; the vector is the last column."""
    others = [name for name in columns if name != VECTOR]
    arrays = [batch[name] for name in (schema.URI, *others, VECTOR)]
    return pa.RecordBatch.from_arrays(arrays, names=[IMAGE_PATH, *others, VECTOR])


def _objects(batch: pa.RecordBatch, metadata: Sequence[str]) -> list[dict[str, Any]]:
    """Return the metadata of each row, without nulls."""
    if not metadata:
        return [{} for _ in range(batch.num_rows)]
    rows = json_values.objects(batch.select(metadata))
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value if _is_flat(value) else json_values.text(value) for name, value in row.items()}


def _is_flat(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return not isinstance(value, dict)


def _refused(database: str, id_: str, rule: str) -> ConfigError:
    return ConfigError(
        f"{database} {rule}, but the row {redacted(id_)} has more or others. "
        "Leave such rows out with --where, or columns with --columns."
    )
