"""The files of a model get to a folder on this machine, or an error names what is missing."""

import shutil
from pathlib import Path

import huggingface_hub
import pytest
import s3fs
import torch
from safetensors.torch import load_file
from transformers import ViTForImageClassification

from pipeline.errors import StorageError
from tests.models.resolving import fingerprint, refusal, resolve
from tests.support import seaweed
from tests.support.making import STORAGE, edit_json


def test_a_missing_shard_is_refused(original: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    ViTForImageClassification.from_pretrained(original).save_pretrained(sharded, max_shard_size="40KB")
    shutil.copy(original / "preprocessor_config.json", sharded)
    max(sharded.glob("model-*.safetensors")).unlink()
    refusal(sharded)


def test_a_model_of_pickles_alone_is_refused_and_not_loaded(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "has no model.safetensors" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_missing_or_broken_file_is_named(folder: Path, name: str) -> None:
    for text, reason in (("{", "is not JSON"), ("[]", "not a JSON object"), ("\xff", "is not JSON")):
        (folder / name).write_bytes(text.encode("latin-1"))
        assert f"has a {name} that {'is ' if 'object' in reason else ''}{reason}" in refusal(folder)
    (folder / name).unlink()
    assert f"has no {name}" in refusal(folder)


def test_an_incomplete_set_of_shards_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    assert "lacks model-00002-of-00002.safetensors" in refusal(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ["a"]}')
    assert "invalid weight_map" in refusal(folder)


def test_a_model_on_s3_is_read_without_permission_to_list(
    original: Path, tmp_path: Path, s3: seaweed.S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKELENS_CACHE", str(tmp_path / "cache"))
    sharded = tmp_path / "sharded"
    ViTForImageClassification.from_pretrained(original).save_pretrained(sharded, max_shard_size="40KB")
    shutil.copy(original / "preprocessor_config.json", sharded)
    s3.filesystem().makedirs("models", exist_ok=True)
    for folder in (original, sharded):
        s3.filesystem().put(f"{folder}/", f"models/{folder.name}/", recursive=True)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.READER)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(PermissionError):
        STORAGE.filesystem("s3://models")[0].ls("models")
    for folder in (original, sharded):
        assert fingerprint(f"s3://models/{folder.name}") == fingerprint(folder)
    with pytest.raises(StorageError, match="access is denied"):
        resolve("s3://models/none")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all"])
def test_a_missing_folder_is_named(name: str) -> None:
    assert refusal(name) == f"The model folder {name} does not exist on this machine."


@pytest.mark.parametrize("name", ["no such model", "a/b/c", "a//b", "x" * 200])
def test_a_name_that_is_neither_a_folder_nor_a_hub_id_is_refused(name: str) -> None:
    assert "is neither a folder nor a hub id" in refusal(name)


def test_a_model_on_an_unreachable_hub_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "nor in the local cache" in refusal("nobody/such-a-model-is-not-cached")


def test_a_remote_folder_is_copied_once_for_each_version_of_its_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKELENS_CACHE", str(tmp_path / "cache"))
    uri = f"memory://{tmp_path.name}/tiny"
    fs, path = STORAGE.filesystem(uri)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    fs.put(str(folder), path, recursive=True)
    found = resolve(uri)
    assert fingerprint(uri) == fingerprint(folder)
    assert not (found.folder / "pytorch_model.bin").exists()
    assert resolve(uri).folder == found.folder
    edit_json(folder / "config.json", layer_norm_eps=0.1)
    fs.put_file(str(folder / "config.json"), f"{path}/config.json")
    assert fingerprint(uri) == fingerprint(folder)
    assert resolve(uri).folder != found.folder
    assert "no model folder at memory://models/none" in refusal("memory://models/none")
