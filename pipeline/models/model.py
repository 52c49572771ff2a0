"""Resolve a model: its folder, preprocessing, labels, hash of weights, and fingerprint.

A model is a Hugging Face hub id, a local folder or a folder on any fsspec store. LakeLens reads only
`config.json`, the files of its processor, and safetensors: no pickle, no code. This module does not import torch,
and does not know how the model is computed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.config import DecodeConfig, EmbeddingConfig, ModelConfig
from pipeline.errors import ModelError
from pipeline.models import model_files
from pipeline.models.families import FAMILY_OF, Family
from pipeline.models.model_files import read_json, weights_of
from pipeline.models.processor import NESTED, OWN, SHARED, read_preprocessing
from pipeline.models.text_tower import TextTower, read_text_tower
from pipeline.models.weight_names import read_names
from pipeline.preprocessing import Preprocessing
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import is_local

_IRRELEVANT_KEYS = {
    "_name_or_path",
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "problem_type",
    "torch_dtype",
    "transformers_version",
}
"""Keys of config.json that do not change a vector."""
HEADS = {"classifier.weight", "cls_classifier.weight"}
"""The names of weights of trained classification heads. Heads that segment images have other names."""
_CHOOSE = f"choose a model of one of the types {', '.join(FAMILY_OF)}"


@dataclass(frozen=True)
class Model:
    """A resolved model. `folder` is on this machine; all other fields are the same on every machine.

    `revision` is a commit on the hub, and "-" for a folder. `labels` are in the order of the logits; a model
    without a head has none. `dim` is the dimension of the embedding.
    """

    name: str
    revision: str
    folder: Path
    model_type: str
    weights_sha256: str
    architecture_sha256: str
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    dim: int
    text: TextTower | None = None

    @property
    def family(self) -> Family:
        """The record of the model's family."""
        return FAMILY_OF[self.model_type]

    def pooling(self, asked: str) -> str:
        """Return how the embedding is made: `asked`, or the family's own way for `auto`.

        Raises: ModelError if the family has no such pooling.
        """
        poolings = self.family.poolings
        if asked != "auto" and asked not in poolings:
            raise ModelError(
                f"The model {self.name} of type {self.model_type} has no pooling {asked!r}; set embedding.pooling "
                f"to auto or {' or '.join(poolings)}."
            )
        return poolings[0] if asked == "auto" else asked

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know before a run, as sentences."""
        if self.labels:
            return ()
        why = "its weights hold no trained head" if self.family.has_heads else "its family has none"
        return (f"{self.name} has no classification head ({why}): label, score and labels will be null",)

    @property
    def slug(self) -> str:
        """The last part of the model's name, usable as a file name."""
        last = [part for part in self.name.rstrip("/").split("/") if part][-1:]
        return "".join(c if c.isalnum() or c in "._-" else "-" for c in "".join(last)) or "model"

    def pinned(self, config: ModelConfig) -> ModelConfig:
        """Return the config of the same model for other processes: an absolute folder, or the hub's commit."""
        if not is_local(config.name):
            return config
        local = Path(config.name).expanduser().is_dir()
        return config.model_copy(update={"name": str(self.folder)} if local else {"revision": self.revision})

    def require(self, weights_sha256: str) -> None:
        """Check that these are the weights that the run was planned with. Raises: ModelError."""
        if self.weights_sha256 != weights_sha256:
            raise ModelError(
                f"The model {self.name} has other weights on this node than on the machine that started the run; "
                "put it on shared storage, or set model.revision to a commit."
            )

    def space(
        self, embedding: EmbeddingConfig, decode: DecodeConfig, quantization: str | None = None
    ) -> dict[str, Any]:
        """Return the contents of `space.json`: what decides the vectors, and their fingerprint."""
        decisive = {
            "weights_sha256": self.weights_sha256,
            "architecture_sha256": self.architecture_sha256,
            "preprocessing": asdict(self.preprocessing),
            "fast_decode": decode.fast,
            "pooling": self.pooling(embedding.pooling),
            "normalize": embedding.normalize,
        } | ({"quantization": quantization} if quantization else {})
        canonical = json.dumps(decisive, sort_keys=True).encode()
        return {
            "model": self.name,
            "revision": self.revision,
            "model_type": self.model_type,
            **decisive,
            "dim": self.dim,
            "head": bool(self.labels),
            "labels": list(self.labels),
            "text": asdict(self.text) if self.text else None,
            "fingerprint": hashlib.sha256(canonical).hexdigest()[:12],
        }


def resolve(config: ModelConfig, storage: Storage) -> Model:
    """Find the model, fetch it if it is remote, and read its description.

    Raises: StorageError, ModelError if it does not exist, is not a supported image encoder, or has no
    safetensors.
    """
    folder, revision = model_files.fetch(config, storage)
    settings = read_json(folder / "config.json", config.name)
    model_type = str(settings.get("model_type"))
    family = FAMILY_OF.get(model_type)
    if family is None:
        raise ModelError(
            f"The model {config.name} is of type {model_type!r}, which LakeLens does not support; {_CHOOSE}."
        )
    files = weights_of(folder, config.name)
    names = read_names(files, config.name)
    _require_encoder(names, family, config.name)
    processor, file = _processor(folder, config.name)
    steps = read_preprocessing(processor, config.name, file, family.processor)
    try:
        if family.image_size is not None:
            _check_input_size(steps, family.image_size.of(settings), config.name, file)
        labels = _labels(settings, config.name) if family.has_heads and _has_head(names) else ()
        dim = _last(family.dim.of(settings))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ModelError(f"The model {config.name} has invalid values in its config.json: {error!r}.") from error
    weights_sha256 = _sha256(files)
    return Model(
        name=config.name,
        revision=revision,
        folder=folder,
        model_type=model_type,
        weights_sha256=weights_sha256,
        architecture_sha256=_architecture_sha256(settings),
        preprocessing=steps,
        labels=labels,
        dim=dim,
        text=read_text_tower(folder, family, settings, files, names, weights_sha256),
    )


def _require_encoder(names: frozenset[str], family: Family, model: str) -> None:
    """Raises: ModelError if weights are missing that the embedding is made with."""
    missing = [wanted for wanted in family.required if not any(name.endswith(wanted) for name in names)]
    if missing:
        raise ModelError(
            f"The weights of {model} lack {missing[0]}, a part of its image encoder; restore them, or {_CHOOSE}."
        )


def _has_head(names: frozenset[str]) -> bool:
    return not HEADS.isdisjoint(names)


def _last(dims: Any) -> int:
    return int(dims[-1] if isinstance(dims, list) else dims)


def _processor(folder: Path, name: str) -> tuple[dict[str, Any], str]:
    """Return the image processor's settings, and their file. The shared file comes first, as in transformers.

    Raises: ModelError if neither file has them.
    """
    nested = read_json(folder / SHARED, name).get(NESTED) if (folder / SHARED).exists() else None
    if nested is None and (folder / OWN).exists():
        return read_json(folder / OWN, name), OWN
    if nested is None:
        raise ModelError(
            f"The model {name} has no {OWN}, so its image size, mean and std are unknown; write one with "
            "AutoImageProcessor.from_pretrained(BASE).save_pretrained(FOLDER), where BASE is the model that this "
            "one was trained from."
        )
    if not isinstance(nested, dict):
        raise ModelError(f"The model {name} has a {SHARED} whose {NESTED} is not a JSON object.")
    return nested, SHARED


def _sha256(files: list[Path]) -> str:
    """Hash the contents of all weight files, in the order of their names."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _architecture_sha256(settings: Mapping[str, Any]) -> str:
    """Hash what config.json says of the computation: with another number of heads or another epsilon, the same
    weights give other vectors."""
    decisive = {key: value for key, value in settings.items() if key not in _IRRELEVANT_KEYS}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _labels(settings: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return the class names in the order of the logits. Raises: ModelError."""
    id2label = settings.get("id2label")
    if id2label is None:
        count = int(settings.get("num_labels", 2))  # Hugging Face's own default
        id2label = {str(index): f"LABEL_{index}" for index in range(count)}
    try:
        labels = tuple(str(id2label[str(index)]) for index in range(len(id2label)))
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"The model {name} has an id2label that does not number its labels from 0; fix its config.json."
        ) from error
    if not labels:
        raise ModelError(f"The model {name} has no labels; add an id2label to its config.json.")
    return labels


def _check_input_size(steps: Preprocessing, expected: Any, name: str, file: str) -> None:
    """Raises: ModelError if preprocessing gives images of another size than the model takes."""
    sizes = (expected, expected) if isinstance(expected, int) else tuple(expected)
    if sizes != (steps.height, steps.width):
        raise ModelError(
            f"The model {name} takes images of {sizes[0]}x{sizes[1]}, but its {file} makes them "
            f"{steps.height}x{steps.width}; fix one of them."
        )
