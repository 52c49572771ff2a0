"""The int8 model of an output: made once, kept below it, and used by every later run.

    <folder>/int8.json             which files, their hash, and how well the model agrees with float32
    <folder>/<id>/graph.{xml,bin}

It does not know how a model is quantised.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from pipeline.errors import ModelError
from pipeline.models.comparison import Agreement
from pipeline.storage.caches import cache_folder, made_at_once
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import join

INT8 = "int8"
"""The precision that has a model of its own."""
RECIPE = "nncf-transformer-int8-portable-minmax-0.5"
"""Part of the fingerprint: another one for every change of what `engines.quantize` does."""
FILE = "int8.json"
PARTS = ("graph.xml", "graph.bin")


@dataclass(frozen=True)
class Quantized:
    """What `int8.json` says."""

    id: str
    sha256: str
    images: int
    cosine_mean: float
    top1: float


def recipe(precision: str) -> str | None:
    """How a model of this precision is quantised; None if it is not."""
    return RECIPE if precision == INT8 else None


def find(folder: str, storage: Storage) -> Quantized | None:
    """What the output has; None if nothing yet. Raises: StorageError, ModelError if it makes no sense."""
    where = join(folder, FILE)
    text = storage.read(where)
    if text is None:
        return None
    try:
        return Quantized(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{where} does not describe an int8 model.") from error


def store(folder: str, storage: Storage, graph: Path, images: int, agreement: Agreement) -> None:
    """Keep a graph's files; if another run was first, its model stays. Raises: StorageError."""
    made = Quantized(uuid4().hex, _sha256(graph), images, agreement.cosine_mean, agreement.top1)
    for part in PARTS:
        storage.upload(graph / part, join(folder, made.id, part))
    storage.create(join(folder, FILE), json.dumps(asdict(made), indent=2).encode() + b"\n")


def fetch(folder: str, storage: Storage) -> Path:
    """The graph on this machine, from the cache or the output. Raises: ModelError if it is gone or damaged."""
    known = find(folder, storage)
    if known is None:
        raise ModelError(f"{folder} holds no int8 model.")
    target = cache_folder() / "openvino" / f"int8-{known.sha256[:16]}"
    if target.exists():
        return target / PARTS[0]
    with made_at_once(target) as scratch:
        for part in PARTS:
            data = storage.read(join(folder, known.id, part))
            if data is None:
                raise ModelError(f"{join(folder, known.id, part)} is gone.")
            (scratch / part).write_bytes(data)
        if _sha256(scratch) != known.sha256:
            raise ModelError(f"The int8 model below {folder} is damaged: its hash is another.")
    return target / PARTS[0]


def _sha256(folder: Path) -> str:
    return hashlib.sha256(b"".join((folder / part).read_bytes() for part in PARTS)).hexdigest()
