"""A folder becomes a model with a fingerprint, or one sentence says why not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, ViTForImageClassification

from pipeline.config import DecodeConfig, EmbeddingConfig, ModelConfig
from pipeline.errors import ModelError
from pipeline.models import model
from pipeline.models.families import FAMILY_OF
from tests.models.resolving import fingerprint, refusal, resolve
from tests.support.making import STORAGE, edit_json


def change_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_local_folder_is_resolved(original: Path) -> None:
    found = resolve(original)
    assert (found.folder, found.revision, found.model_type, found.dim) == (original, "-", "vit", 32)
    assert found.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert (found.preprocessing.height, found.preprocessing.width) == (32, 32)
    assert found.slug == "tiny-vit"


def test_a_relative_folder_is_the_same_model(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(original.parent)
    found = resolve("tiny-vit")
    assert found.folder == original
    assert fingerprint("./tiny-vit") == fingerprint(original)


CHANGES: dict[str, Callable[[Path], object]] = {
    "the weights": change_weights,
    "the size of the preprocessing": lambda f: edit_json(f / "preprocessor_config.json", resample=3),
    "the mean": lambda f: edit_json(f / "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3]),
    "the heads": lambda f: edit_json(f / "config.json", num_attention_heads=4),
    "an epsilon": lambda f: edit_json(f / "config.json", layer_norm_eps=1e-6),
    "the activation": lambda f: edit_json(f / "config.json", hidden_act="relu"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_a_vector_changes_the_fingerprint(original: Path, folder: Path, change: str) -> None:
    CHANGES[change](folder)
    assert fingerprint(folder) != fingerprint(original)


def test_the_fingerprint_of_the_demo_model_never_changes() -> None:
    """Every output names its fingerprint: one that changes would close all outputs to later runs."""
    assert fingerprint(Path(__file__).parents[2] / "pipeline" / "demo" / "model") == "d17fe849e0ea"


def test_pooling_normalising_and_fast_decoding_each_have_a_fingerprint_of_their_own(original: Path) -> None:
    prints = [
        fingerprint(original),
        fingerprint(original, pooling="mean"),
        fingerprint(original, normalize=False),
        fingerprint(original, fast=True),
        fingerprint(original, pooling="mean", normalize=False, fast=True),
    ]
    assert len(set(prints)) == len(prints)


def test_names_labels_and_revisions_do_not_change_the_fingerprint(original: Path, folder: Path) -> None:
    names = {"id2label": {"0": "cat", "1": "dog", "2": "cow"}, "label2id": {"cat": 0}, "_name_or_path": "x"}
    edit_json(folder / "config.json", **names, architectures=["Other"], transformers_version="4.0", dtype=...)
    edit_json(folder / "preprocessor_config.json", do_resize=True, image_processor_type="ViTImageProcessorFast")
    renamed = folder.rename(folder.with_name("other-name"))
    assert fingerprint(renamed) == fingerprint(original)
    assert resolve(renamed).labels == ("cat", "dog", "cow")
    assert resolve(renamed, revision="v2").space(EmbeddingConfig(), DecodeConfig())["fingerprint"] == fingerprint(
        original
    )


def test_a_fingerprint_is_the_same_in_every_process(original: Path) -> None:
    description = resolve(original).space(EmbeddingConfig(), DecodeConfig())
    assert description == resolve(original).space(EmbeddingConfig(), DecodeConfig())
    assert len(description["fingerprint"]) == 12
    assert int(description["fingerprint"], 16) >= 0


def test_every_shard_of_the_weights_changes_the_fingerprint(original: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    ViTForImageClassification.from_pretrained(original).save_pretrained(sharded, max_shard_size="40KB")
    shutil.copy(original / "preprocessor_config.json", sharded)
    shards = sorted(sharded.glob("model-*.safetensors"))
    assert len(shards) > 1
    before = fingerprint(sharded)
    for shard in shards:
        data = shard.read_bytes()
        shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert fingerprint(sharded) != before
        shard.write_bytes(data)
    assert fingerprint(sharded) == before


@pytest.mark.parametrize(
    "model_type", ["bert", "clip_text_model", "detr", "yolos", "siglip2", "timm_wrapper", "unheard-of", ...]
)
def test_another_type_of_model_is_refused_and_the_known_ones_are_named(folder: Path, model_type: Any) -> None:
    edit_json(folder / "config.json", model_type=model_type)
    assert ", ".join(FAMILY_OF) in refusal(folder)


@pytest.mark.parametrize("name", ["decode_head.classifier.weight", "lm_head.weight", "qa_classifier.weight.x"])
def test_a_head_of_another_task_gives_no_labels(folder: Path, name: str) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[name] = weights.pop("classifier.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    found = resolve(folder)
    assert (found.labels, len(found.notes)) == ((), 1)


def nested(folder: Path, **values: Any) -> None:
    """The settings move into the file that newer transformers write, with these changes."""
    settings = {**json.loads((folder / "preprocessor_config.json").read_text()), **values}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": settings}))


def test_an_image_processor_may_be_nested_in_the_processors_file(original: Path, folder: Path) -> None:
    nested(folder)
    (folder / "preprocessor_config.json").unlink()
    assert fingerprint(folder) == fingerprint(original)
    nested_size = {"image_processor": {"size": [48, 48], "image_processor_type": "ViTImageProcessor"}}
    (folder / "processor_config.json").write_text(json.dumps(nested_size))
    assert "its processor_config.json makes them 48x48" in refusal(folder)


def test_a_processor_is_read_from_the_same_file_as_in_transformers(folder: Path) -> None:
    mean, std = [0.1, 0.2, 0.3], [0.2, 0.2, 0.2]
    nested(folder, image_mean=mean, image_std=std)
    theirs = AutoImageProcessor.from_pretrained(folder)
    assert (list(theirs.image_mean), list(theirs.image_std)) == (mean, std)
    ours = model.resolve(ModelConfig(name=str(folder)), STORAGE).preprocessing
    assert ours.bias == pytest.approx([-m / s for m, s in zip(mean, std, strict=True)])


def test_a_broken_processor_file_is_named(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text("")
    assert "has a preprocessor_config.json that is not JSON" in refusal(folder)


def test_a_model_without_labels_is_refused(folder: Path) -> None:
    edit_json(folder / "config.json", id2label={})
    assert "has no labels" in refusal(folder)


def test_the_error_for_missing_processor_settings_says_how_to_write_them(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    for text in (None, '{"tokenizer": {}}', '{"image_processor": null}'):
        if text:
            (folder / "processor_config.json").write_text(text)
        assert "has no preprocessor_config.json" in refusal(folder)
        assert "AutoImageProcessor" in refusal(folder)
    for text, sentence in (('{"image_processor": 7}', "not a JSON object"), ("{", "is not JSON")):
        (folder / "processor_config.json").write_text(text)
        assert "processor_config.json" in refusal(folder)
        assert sentence in refusal(folder)


def test_an_input_size_that_the_model_does_not_take_is_refused_with_both_sizes(folder: Path) -> None:
    edit_json(folder / "preprocessor_config.json", size=48)
    sentence = refusal(folder)
    assert "takes images of 32x32" in sentence
    assert "makes them 48x48" in sentence


def test_dinov2_takes_any_input_size(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="dinov2")
    edit_json(folder / "preprocessor_config.json", size=48)
    assert resolve(folder).preprocessing.height == 48


@pytest.mark.parametrize("id2label", [{"1": "a"}, {"a": "b"}, ["a"], {"0": "a", "2": "b"}])
def test_labels_that_are_not_numbered_from_zero_are_refused(folder: Path, id2label: Any) -> None:
    edit_json(folder / "config.json", id2label=id2label)
    assert "id2label" in refusal(folder)


def test_labels_without_names_are_numbered(folder: Path) -> None:
    edit_json(folder / "config.json", id2label=..., num_labels=4)
    assert resolve(folder).labels == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")


@pytest.mark.parametrize("values", [{"hidden_size": ...}, {"image_size": "big"}, {"image_size": None}], ids=str)
def test_a_config_without_usable_sizes_is_refused(folder: Path, values: dict[str, Any]) -> None:
    edit_json(folder / "config.json", **values)
    refusal(folder)


def test_a_model_is_pinned_to_a_folder_that_every_process_finds(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(original.parent)
    config = ModelConfig(name="tiny-vit", precision="fp32")
    pinned = model.resolve(config, STORAGE).pinned(config)
    assert pinned == ModelConfig(name=str(original), precision="fp32")


def test_other_weights_than_the_planned_ones_are_refused(original: Path) -> None:
    found = resolve(original)
    found.require(found.weights_sha256)
    with pytest.raises(ModelError, match="other weights on this node"):
        found.require("0" * 64)
