"""The int8 model of an output: made once, stored in a folder below it, and used by every later run.

    <folder>/int8.json             the id of the model, its hash, and how far it agrees with float32
    <folder>/<id>/graph.{xml,bin}

This module does not know how a model is quantised.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from pipeline.errors import ModelError
from pipeline.models.comparison import Agreement
from pipeline.storage.caches import atomic_folder, cache_folder
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import join

INT8 = "int8"
"""The precision that needs a model of its own."""
RECIPE = "nncf-transformer-int8-portable-minmax-0.5"
"""Part of the fingerprint. Change it whenever `engines.quantize` gives another model."""
DESCRIPTION_FILE = "int8.json"
GRAPH_FILES = ("graph.xml", "graph.bin")


@dataclass(frozen=True)
class Int8Model:
    """The contents of `int8.json`: the folder's name, the hash of the files, how many images calibrated the
    model, and its agreement with float32."""

    id: str
    sha256: str
    images: int
    cosine_mean: float
    top1: float | None


def recipe(precision: str) -> str | None:
    """Return the recipe that quantises a model to this precision; None if it needs none."""
    return RECIPE if precision == INT8 else None


def find(folder: str, storage: Storage) -> Int8Model | None:
    """Return the description of the stored model; None if there is none.

    Raises: StorageError, ModelError if the description is invalid.
    """
    uri = join(folder, DESCRIPTION_FILE)
    text = storage.read(uri)
    if text is None:
        return None
    try:
        return Int8Model(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{uri} does not describe an int8 model; restore it, or use another output.") from error


def store(folder: str, storage: Storage, graph: Path, images: int, agreement: Agreement) -> None:
    """Store the graph's files. A model that another run has stored before stays. Raises: StorageError."""
    made = Int8Model(uuid4().hex, _sha256(graph), images, agreement.cosine_mean, agreement.top1)
    for file in GRAPH_FILES:
        storage.upload(graph / file, join(folder, made.id, file))
    storage.create(join(folder, DESCRIPTION_FILE), json.dumps(asdict(made), indent=2).encode() + b"\n")


def fetch(folder: str, storage: Storage) -> Path:
    """Return the path of the graph on this machine, from the cache or the output.

    Raises: StorageError, ModelError if the model is missing or damaged.
    """
    known = find(folder, storage)
    if known is None:
        raise ModelError(f"{folder} holds no int8 model.")
    target = cache_folder() / "openvino" / f"int8-{known.sha256[:16]}"
    if target.exists():
        return target / GRAPH_FILES[0]
    with atomic_folder(target) as scratch:
        for file in GRAPH_FILES:
            data = storage.read(join(folder, known.id, file))
            if data is None:
                raise ModelError(
                    f"{join(folder, known.id, file)}, a file of the int8 model, is missing; restore it."
                )
            (scratch / file).write_bytes(data)
        if _sha256(scratch) != known.sha256:
            raise ModelError(
                f"The int8 model below {folder} is damaged: its hash is not that of {DESCRIPTION_FILE}."
            )
    return target / GRAPH_FILES[0]


def _sha256(folder: Path) -> str:
    return hashlib.sha256(b"".join((folder / file).read_bytes() for file in GRAPH_FILES)).hexdigest()
