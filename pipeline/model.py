"""Resolve a model: its folder, its preprocessing, its labels, its weights hash and fingerprint.

A model is a Hugging Face hub id, a local folder or a folder on any fsspec store. Only `config.json`,
`preprocessor_config.json` and safetensors are ever read: no pickle, no code. Nothing here imports
torch or knows how the model is computed.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.config import DecodeConfig, EmbeddingConfig, ModelConfig
from pipeline.errors import ModelError
from pipeline.preprocessing import Preprocessing, read_preprocessing
from pipeline.storage import Storage, failure, scheme

WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
INDEX = "model.safetensors.index.json"
FILES = ("config.json", "preprocessor_config.json", INDEX, *WEIGHTS)
MODEL_TYPES = ("vit", "deit", "vit_msn", "dinov2", "dinov2_with_registers", "beit", "data2vec-vision")
"""Hugging Face model types whose last hidden state starts with a CLS token."""
_BYSTANDERS = {
    *("_name_or_path", "architectures", "dtype", "id2label", "label2id", "problem_type", "torch_dtype"),
    "transformers_version",
}
"""Keys of config.json that do not change a vector."""


@dataclass(frozen=True)
class Model:
    """A resolved model. `folder` is on this machine; every other field is the same on every machine."""

    name: str
    revision: str
    folder: Path
    model_type: str
    weights_sha256: str
    architecture_sha256: str
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    dim: int

    @property
    def slug(self) -> str:
        """The model's name as one path component."""
        last = [part for part in self.name.rstrip("/").split("/") if part][-1:]
        return "".join(c if c.isalnum() or c in "._-" else "-" for c in "".join(last)) or "model"

    def pinned(self, config: ModelConfig) -> ModelConfig:
        """The same model for other processes: an absolute folder, or the exact commit on the hub."""
        if scheme(config.name) != "file":
            return config
        local = Path(config.name).expanduser().is_dir()
        return config.model_copy(update={"name": str(self.folder)} if local else {"revision": self.revision})

    def require(self, weights_sha256: str) -> None:
        """Raises: ModelError if these are not the weights that the run was planned with."""
        if self.weights_sha256 != weights_sha256:
            raise ModelError(
                f"The model {self.name} has other weights on this node than where the run was started; put it on "
                "shared storage, or name a revision."
            )

    def space(
        self, embedding: EmbeddingConfig, decode: DecodeConfig, quantization: str | None = None
    ) -> dict[str, Any]:
        """What `space.json` holds: all that decides the vectors, and their fingerprint."""
        decisive = {
            "weights_sha256": self.weights_sha256,
            "architecture_sha256": self.architecture_sha256,
            "preprocessing": asdict(self.preprocessing),
            "fast_decode": decode.fast,
            "pooling": embedding.pooling,
            "normalize": embedding.normalize,
        } | ({"quantization": quantization} if quantization else {})
        canonical = json.dumps(decisive, sort_keys=True).encode()
        return {
            "model": self.name,
            "revision": self.revision,
            "model_type": self.model_type,
            **decisive,
            "dim": self.dim,
            "labels": list(self.labels),
            "fingerprint": hashlib.sha256(canonical).hexdigest()[:12],
        }


def resolve(config: ModelConfig, storage: Storage) -> Model:
    """Find the model, fetch it if it is remote, and read what it says of itself.

    Raises: ModelError if it is not there, is not a supported image classifier, or has no safetensors.
    """
    folder, revision = _fetch(config, storage)
    settings = _json(folder / "config.json", config.name)
    model_type = str(settings.get("model_type"))
    if model_type not in MODEL_TYPES:
        raise ModelError(
            f"The model {config.name} is of type {model_type!r}; LakeLens takes {', '.join(MODEL_TYPES)}."
        )
    weights = _weights(folder, config.name)
    steps = read_preprocessing(_json(folder / "preprocessor_config.json", config.name), config.name)
    try:
        _check_input_size(steps, settings, config.name)
        labels, dim = _labels(settings, config.name), int(settings["hidden_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"The model {config.name} has a config.json that makes no sense: {error!r}.") from error
    return Model(
        name=config.name,
        revision=revision,
        folder=folder,
        model_type=model_type,
        weights_sha256=_sha256(weights),
        architecture_sha256=_architecture_sha256(settings),
        preprocessing=steps,
        labels=labels,
        dim=dim,
    )


def cache_folder() -> Path:
    """Where downloaded and converted models are kept: $LAKELENS_CACHE, else the user's cache folder."""
    given = os.environ.get("LAKELENS_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lakelens"


def _fetch(config: ModelConfig, storage: Storage) -> tuple[Path, str]:
    """The model's folder on this machine, and the revision that it is."""
    name = config.name
    if scheme(name) != "file":
        return _download(name, storage), "-"
    path = Path(name).expanduser()
    if path.is_dir():
        return path.absolute(), "-"
    if path.is_absolute() or name.startswith((".", "~")):
        raise ModelError(f"The model folder {name} does not exist on this machine.")
    return _from_hub(name, config.revision)


def _from_hub(name: str, revision: str) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download  # 0.3 s, for those whose model is not in a folder
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except (HFValidationError, ValueError) as error:
        raise ModelError(f"The model {name!r} is neither a folder nor a hub id.") from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"The model {name} is neither a folder here nor in the local cache, and the Hugging Face hub "
            "cannot be reached."
        ) from error
    except HfHubHTTPError as error:
        raise ModelError(
            f"The Hugging Face hub has no model {name} at revision {revision}, or denies access to it "
            "(private and gated models need HF_TOKEN)."
        ) from error
    except OSError as error:
        raise ModelError(f"The model {name} cannot be downloaded: {error.strerror or error}.") from error
    return folder, folder.name  # a snapshot's folder is named after its commit


def _download(uri: str, storage: Storage) -> Path:
    """Copy a remote model folder into the cache, once for each version of its files."""
    fs, root = storage.filesystem(uri)
    try:
        listing = fs.ls(root, detail=True) if fs.isdir(root) else []
    except Exception as error:
        raise failure(error, uri) from error
    wanted = [info for info in listing if any(Path(info["name"]).match(pattern) for pattern in FILES)]
    if not wanted:
        raise ModelError(f"There is no model folder at {uri}: no config.json, no safetensors.")
    versions = sorted((info["name"], info.get("ETag") or info.get("mtime"), info["size"]) for info in wanted)
    key = hashlib.sha256(json.dumps([uri, versions], default=str).encode()).hexdigest()[:16]
    target = cache_folder() / "models" / key
    if not target.exists():
        try:
            with made_at_once(target) as scratch:
                for info in wanted:
                    fs.get_file(info["name"], str(scratch / Path(info["name"]).name))
        except Exception as error:
            raise failure(error, uri) from error
    return target


@contextmanager
def made_at_once(target: Path) -> Iterator[Path]:
    """A folder to fill, which then takes the name `target`, unless another process was first; others see all of it
    or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        yield scratch
        scratch.chmod(0o755)  # mkdtemp makes it private
        try:
            scratch.rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _weights(folder: Path, name: str) -> list[Path]:
    """The weight files, in the order of their names. Raises: ModelError if there are none, or not all."""
    weights = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
    if not weights:
        raise ModelError(f"The model {name} has no {WEIGHTS[0]}; other formats are never loaded.")
    index = folder / INDEX
    wanted = set(_json(index, name).get("weight_map", {}).values()) if index.exists() else set()
    missing = sorted(wanted - {path.name for path in weights})
    if missing:
        raise ModelError(f"The model {name} lacks {missing[0]}, which its {INDEX} names.")
    return weights


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"The model {name} has no {path.name}.") from error
    except ValueError as error:
        raise ModelError(f"The model {name} has a {path.name} that is not JSON.") from error
    if not isinstance(value, dict):
        raise ModelError(f"The model {name} has a {path.name} that is not a JSON object.")
    return value


def _sha256(files: list[Path]) -> str:
    """One hash over the contents of all weight files, in the order of their names."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _architecture_sha256(settings: Mapping[str, Any]) -> str:
    """One hash over all of config.json that is part of the computation: the same weights with other heads
    or another epsilon give other vectors."""
    decisive = {key: value for key, value in settings.items() if key not in _BYSTANDERS}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _labels(settings: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The class names in the order of the logits."""
    id2label = settings.get("id2label")
    if id2label is None:
        count = int(settings.get("num_labels", 2))  # Hugging Face's own default
        return tuple(f"LABEL_{index}" for index in range(count))
    try:
        return tuple(str(id2label[str(index)]) for index in range(len(id2label)))
    except (KeyError, TypeError) as error:
        raise ModelError(f"The model {name} has an id2label that does not number its labels from 0.") from error


def _check_input_size(steps: Preprocessing, settings: Mapping[str, Any], name: str) -> None:
    """DINOv2 resizes its position embeddings to the input; all others take one size."""
    expected = settings.get("image_size", 224)
    sizes = (expected, expected) if isinstance(expected, int) else tuple(expected)
    if not str(settings["model_type"]).startswith("dinov2") and sizes != (steps.height, steps.width):
        raise ModelError(
            f"The model {name} takes images of {sizes[0]}x{sizes[1]}, but its preprocessor_config.json makes them "
            f"{steps.height}x{steps.width}."
        )
