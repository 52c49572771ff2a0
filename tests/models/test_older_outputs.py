"""Outputs that were made before a model family was a record, and before models without heads: they stay open."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import DecodeConfig, EmbeddingConfig
from pipeline.models import int8
from pipeline.models.model import Model
from pipeline.output.space import claim
from tests.models.resolving import resolve
from tests.support.making import STORAGE

NORMALISED = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
    "layer_norm_eps": 1e-12,
    "id2label": {"0": "cat", "1": "dog"},
    "transformers_version": "4.31.0",
}
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "vit": ({}, {"size": {"height": 224, "width": 224}, "image_processor_type": "ViTImageProcessor"}),
    "deit": ({}, {"size": 256, "crop_size": 224, **NORMALISED}),
    "vit_msn": ({"layer_norm_eps": 1e-6}, {"size": 224, "feature_extractor_type": "ViTFeatureExtractor"}),
    "dinov2": (
        {"image_size": 518, "patch_size": 14},
        {"size": {"shortest_edge": 256}, "image_processor_type": "BitImageProcessor", **NORMALISED},
    ),
    "dinov2_with_registers": ({"image_size": 518, "num_register_tokens": 4}, {"crop_size": 196, **NORMALISED}),
    "beit": ({"use_relative_position_bias": True}, {"do_center_crop": False}),
    "data2vec-vision": ({}, {"feature_extractor_type": "BeitFeatureExtractor", "rescale_factor": 0.004}),
}
"""For each type, what `config.json` says beyond BASE, and an image processor's settings in a form of the hub."""
FINGERPRINTS = {
    "vit": ("d93fb45e72e8", "ec4a02289875", "3b9aad9b9d0e"),
    "deit": ("4d7e8cd3fb70", "f90ec02294b9", "7799c4ac8ba4"),
    "vit_msn": ("9470384d2246", "39efd1334007", "57b8e38490c4"),
    "dinov2": ("43b9b47a08c3", "2849ad9b1548", "f706a564a10b"),
    "dinov2_with_registers": ("50f98efe0b2d", "4628a5b8ff5f", "318ac5679fef"),
    "beit": ("36f61d1cafb9", "911481a761f8", "81459a5cb2ec"),
    "data2vec-vision": ("08ba5398d1f5", "30ff44ca900b", "b2ff919d1680"),
}
"""The fingerprints that the version before gave them: by default, with `mean`, and with int8, raw and fast."""


def made(folder: Path, model_type: str) -> Model:
    """A folder of settings and one weight that never change, whatever writes models today."""
    settings, processor = MODELS[model_type]
    (folder / "config.json").write_text(json.dumps({**BASE, **settings, "model_type": model_type}))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    header = b'{"classifier.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    weights = struct.pack("<Q", len(header)) + header + struct.pack("<f", 1)
    (folder / "model.safetensors").write_bytes(weights)
    return resolve(folder)


def fingerprints(model: Model) -> tuple[str, ...]:
    exact, fast = DecodeConfig(), DecodeConfig(fast=True)
    spaces = (
        model.space(EmbeddingConfig(), exact),
        model.space(EmbeddingConfig(pooling="mean"), exact),
        model.space(EmbeddingConfig(normalize=False), fast, int8.recipe("int8")),
    )
    return tuple(space["fingerprint"] for space in spaces)


@pytest.mark.parametrize("model_type", MODELS)
def test_a_classifier_has_the_fingerprint_that_its_older_outputs_name(model_type: str, tmp_path: Path) -> None:
    model = made(tmp_path, model_type)
    assert fingerprints(model) == FINGERPRINTS[model_type]
    assert (model.labels, model.dim) == (("cat", "dog"), 768)


def test_an_output_whose_description_knows_neither_head_nor_text_is_resumed(tmp_path: Path) -> None:
    space = made(tmp_path, "vit").space(EmbeddingConfig(), DecodeConfig())
    older = json.dumps({key: value for key, value in space.items() if key not in ("head", "text")})
    (tmp_path / "space.json").write_text(older)
    held = claim(str(tmp_path), space, STORAGE)
    assert (held.fingerprint, held.text) == (FINGERPRINTS["vit"][0], None)
    assert (tmp_path / "space.json").read_text() == older


def test_a_config_that_asks_for_cls_is_the_same_space_as_one_that_asks_for_nothing(tmp_path: Path) -> None:
    model = made(tmp_path, "vit")
    asked, silent = EmbeddingConfig(pooling="cls"), EmbeddingConfig()
    assert model.space(asked, DecodeConfig()) == model.space(silent, DecodeConfig())
