"""The files of a model, and how they get to a folder on this machine.

This module does not know what a config or a processor means.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from pipeline.config import ModelConfig
from pipeline.errors import ErrorCode, ModelError
from pipeline.models import hub
from pipeline.models.processor import OWN, SHARED
from pipeline.models.text_tower import TOKENIZER_FILES
from pipeline.storage.caches import atomic_folder, cache_folder, set_environment
from pipeline.storage.error_codes import classify
from pipeline.storage.filesystems import Storage, failure
from pipeline.storage.uris import expanded, is_local, join

WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
INDEX = "model.safetensors.index.json"
FILES = ("config.json", OWN, SHARED, INDEX, *WEIGHTS, *TOKENIZER_FILES)


def fetch(config: ModelConfig, storage: Storage) -> tuple[Path, str]:
    """Return the model's folder on this machine, and its revision. Raises: ModelError, StorageError."""
    set_environment()  # must come before the first import of huggingface_hub or transformers
    name = config.name
    if not is_local(name):
        return _download(name, storage), "-"
    path = expanded(name)
    if path.is_dir():
        return path.absolute(), "-"
    if path.is_absolute() or name.startswith((".", "~")):
        raise ModelError(f"The model folder {name} does not exist on this machine.")
    folder = hub.fetch(name, config.revision, FILES, _is_whole)
    return folder, folder.name


def weights_of(folder: Path, name: str) -> list[Path]:
    """Return the weight files, ordered by name. Raises: ModelError if any is missing."""
    weights = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
    if not weights:
        raise ModelError(
            f"The model {name} has no {WEIGHTS[0]}; save it as safetensors: other formats are never loaded."
        )
    there, index = {path.name for path in weights}, folder / INDEX
    named = read_json(index, name).get("weight_map") if index.exists() else {}
    if not isinstance(named, dict) or not all(isinstance(file, str) for file in named.values()):
        raise ModelError(f"The model {name} has a {INDEX} with an invalid weight_map.")
    missing = sorted({*named.values(), *_all_shards(there)} - there)
    if missing:
        raise ModelError(f"The model {name} lacks {missing[0]}, a part of its weights; add this file.")
    return weights


def _all_shards(there: set[str]) -> set[str]:
    """Return the names of all shards: the name of each one contains their number."""
    found = [match for name in there if (match := re.fullmatch(r"model-(\d+)-of-(\d+)\.safetensors", name))]
    return {
        f"model-{number:0{len(match[1])}}-of-{match[2]}.safetensors"
        for match in found
        for number in range(1, int(match[2]) + 1)
    }


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Read a JSON object of the model `name`. Raises: ModelError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"The model {name} has no {path.name}.") from error
    except OSError as error:
        raise ModelError(f"The model {name} has a {path.name} that cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"The model {name} has a {path.name} that is not JSON.") from error
    if not isinstance(value, dict):
        raise ModelError(f"The model {name} has a {path.name} that is not a JSON object.")
    return value


def _is_whole(folder: Path) -> bool:
    """Return whether a snapshot has all files of a model: other programs fill snapshots, too, file by file."""
    try:
        weights_of(folder, "")
    except ModelError:
        return False
    return (folder / "config.json").exists() and any((folder / name).exists() for name in (OWN, SHARED))


def _download(uri: str, storage: Storage) -> Path:
    """Copy a remote model folder into the cache, once for each version of its files.

    Raises: ModelError if there is no model, StorageError.
    """
    fs, root = storage.filesystem(uri)
    try:
        wanted = _listed(fs, root)
    except Exception as error:
        raise failure(error, uri) from error
    if not wanted:
        raise ModelError(f"There is no model folder at {uri}: no config.json, no safetensors.")
    versions = sorted((info["name"], info.get("ETag") or info.get("mtime"), info["size"]) for info in wanted)
    key = hashlib.sha256(json.dumps([uri, versions], default=str).encode()).hexdigest()[:16]
    target = cache_folder() / "models" / key
    if not target.exists():
        try:
            with atomic_folder(target) as scratch:
                for info in wanted:
                    fs.get_file(info["name"], str(scratch / Path(info["name"]).name))
        except Exception as error:
            raise failure(error, uri) from error
    return target


def _listed(fs: Any, root: str) -> list[dict[str, Any]]:
    """Return the model's files by listing the folder, or by their known names if listing is denied."""
    try:
        listing = fs.ls(root, detail=True) if fs.isdir(root) else []
    except Exception as error:
        if classify(error) != ErrorCode.ACCESS_DENIED:
            raise
        return _by_known_names(fs, root)
    return [info for info in listing if any(Path(info["name"]).match(pattern) for pattern in FILES)]


def _by_known_names(fs: Any, root: str) -> list[dict[str, Any]]:
    """Return the files with fixed names, and the weights that the index names.

    Raises: the store's exception if even config.json is denied.
    """
    found = [fs.info(join(root, "config.json"))]
    index = _info(fs, join(root, INDEX))
    shards = _shards(fs.cat_file(index["name"])) if index else WEIGHTS[:1]
    others = [_info(fs, join(root, name)) for name in (OWN, SHARED, *TOKENIZER_FILES, *shards)]
    return [*found, *(info for info in (index, *others) if info)]


def _shards(index: bytes) -> list[str]:
    """Return the files that an index names; none if it is invalid, which `weights_of` reports."""
    try:
        return sorted(set(json.loads(index)["weight_map"].values()))
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def _info(fs: Any, path: str) -> dict[str, Any] | None:
    """Return the file's details; None if it is missing, which S3 calls "denied" if the client may not list."""
    try:
        return fs.info(path)  # type: ignore[no-any-return]
    except (FileNotFoundError, PermissionError):
        return None
