"""Every family, with and without a head, against plain transformers: the vectors that people search with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from pipeline.config import EmbeddingConfig, ModelConfig
from pipeline.engines import loading
from pipeline.engines.base import Engine
from pipeline.engines.network import FirstTokens, Network
from pipeline.errors import ModelError
from pipeline.models.families import FAMILY_OF
from pipeline.models.model import Model, resolve
from pipeline.storage.filesystems import Storage
from tests.support import lakes

ENGINES = ("torch", "openvino")
NEW_HEADS = ("convnext", "swin")
"""The others run through OpenVINO with their heads in test_engines."""
HEADS = [name for name, family in FAMILY_OF.items() if family.has_heads]
POOLED = [(name, pooling) for name, family in FAMILY_OF.items() for pooling in family.poolings]
PATCHES_READ = ("convnext", "convnextv2", "swin", "swinv2", "siglip", "siglip_vision_model")
"""Types whose embedding is not made of the first token alone."""
PREFIX = {"dinov2_with_registers": 5, "dinov3_vit": 5, "deit": 2, "siglip": 0, "siglip_vision_model": 0}
"""Tokens before the patches: CLS, DeiT's distillation token, registers. 1 for all others."""


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Path]:
    """Made when it is asked for: a tiny encoder by its type, with or without a head."""

    class Made(dict[tuple[str, bool], Path]):
        def __missing__(self, key: tuple[str, bool]) -> Path:
            self[key] = lakes.tiny_encoder(tmp_path_factory.mktemp(key[0]), key[0], head=key[1])
            return self[key]

    return Made()


def resolved(folder: Path) -> Model:
    return resolve(ModelConfig(name=str(folder)), Storage())


def load(folder: Path, engine: str, pooling: Any = "auto") -> Engine:
    config = ModelConfig(name=str(folder), precision="fp32")
    embedding = EmbeddingConfig(pooling=pooling)
    return loading.load_engine(resolved(folder), config, embedding, engine=engine, top_k=5, threads=2)


def by_transformers(folder: Path, model_type: str, pooling: str, pixels: NDArray[np.uint8]) -> NDArray[Any]:
    """The vectors, written down for each family apart from the records of the library."""
    values = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    auto = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        if model_type == "clip":
            found = auto.get_image_features(pixel_values=values).pooler_output
        elif model_type == "clip_vision_model":
            network = transformers.CLIPVisionModelWithProjection.from_pretrained(folder).eval()
            found = network(pixel_values=values).image_embeds
        else:
            encoder = auto.vision_model if model_type == "siglip" else auto
            output = encoder(pixel_values=values)
            hidden, first = output.last_hidden_state, PREFIX.get(model_type, 1)
            found = {
                "cls": lambda: hidden[:, 0],
                "mean": lambda: hidden[:, first:].mean(1),
                "pooled": lambda: output.pooler_output,
            }[pooling]()
    vectors: NDArray[Any] = found.numpy()
    return vectors


def cosines(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return found


def assert_alike(found: NDArray[Any], expected: NDArray[Any], least: float) -> None:
    """Also after the mean is subtracted: vectors of random weights are nearly alike, and hide a wrong token."""
    assert found.shape == expected.shape
    assert cosines(found, expected).min() > least
    assert cosines(found - found.mean(0), expected - expected.mean(0)).min() > least


@pytest.mark.parametrize(("model_type", "pooling"), POOLED)
def test_a_model_without_a_head_gives_the_vectors_of_transformers_and_no_labels(
    model_type: str, pooling: str, folders: dict[tuple[str, bool], Path], pixels: NDArray[np.uint8]
) -> None:
    folder = folders[model_type, False]
    expected = by_transformers(folder, model_type, pooling, pixels)
    for engine in ENGINES if pooling == FAMILY_OF[model_type].poolings[0] else ENGINES[:1]:
        found = load(folder, engine, pooling).predict(pixels)
        assert_alike(found.embeddings, expected, 0.99999)
        assert (found.indices.shape, found.scores.shape) == ((5, 0), (5, 0))
        assert found.embeddings.shape[1] == resolved(folder).dim


@pytest.mark.parametrize("model_type", HEADS)
def test_a_head_changes_no_vector_and_gives_the_labels_of_transformers(
    model_type: str, folders: dict[tuple[str, bool], Path], pixels: NDArray[np.uint8]
) -> None:
    folder = folders[model_type, True]
    network = transformers.AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    values = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        scores = network(values).logits.softmax(1).numpy()
    pooling = FAMILY_OF[model_type].poolings[0]
    expected = by_transformers(folder, model_type, pooling, pixels)
    for engine in ENGINES[: 2 if model_type in NEW_HEADS else 1]:
        found = load(folder, engine).predict(pixels)
        assert_alike(found.embeddings, expected, 0.99999)
        assert (found.indices[:, 0] == scores.argmax(1)).all()
        assert np.allclose(found.scores, np.sort(scores, axis=1)[:, ::-1][:, :5], atol=1e-4)


@pytest.mark.parametrize("model_type", FAMILY_OF)
def test_the_reference_gives_the_same_vectors(
    model_type: str, folders: dict[tuple[str, bool], Path], pixels: NDArray[np.uint8]
) -> None:
    folder, pooling = folders[model_type, False], FAMILY_OF[model_type].poolings[0]
    found = loading.load_reference(resolved(folder), EmbeddingConfig(), 5).predict(pixels)
    assert_alike(found.embeddings, by_transformers(folder, model_type, pooling, pixels), 0.99999)
    assert found.indices.shape == (5, 0)


def tokens_computed(network: Network) -> set[int]:
    """How many tokens the parts of the last layer compute that know one token at a time."""
    counts: set[int] = set()
    for part in network.modules():
        if isinstance(part, FirstTokens):
            part.module.register_forward_hook(lambda _module, _inputs, found: counts.add(found.shape[1]))
    with torch.inference_mode():
        network(torch.zeros((2, 32, 32, 3), dtype=torch.uint8))
    return counts


@pytest.mark.parametrize("model_type", FAMILY_OF)
def test_the_last_layer_computes_only_the_tokens_that_are_read(
    model_type: str, folders: dict[tuple[str, bool], Path]
) -> None:
    headless = resolved(folders[model_type, False])
    assert tokens_computed(Network(headless, "auto")) == (set() if model_type in PATCHES_READ else {1})
    if "mean" in headless.family.poolings:
        assert tokens_computed(Network(headless, "mean")) == set()
    if model_type in HEADS:
        read = {"vit": {1}, "vit_msn": {1}, "deit": {2}}.get(model_type, set())  # other heads read patches, too
        assert tokens_computed(Network(resolved(folders[model_type, True]), "auto")) == read


@pytest.mark.parametrize(("model_type", "pooling"), [("siglip", "cls"), ("clip", "mean"), ("vit", "pooled")])
def test_a_pooling_that_a_family_does_not_have_is_one_sentence(
    model_type: str, pooling: str, folders: dict[tuple[str, bool], Path]
) -> None:
    with pytest.raises(
        ModelError, match=rf"of type {model_type} has no pooling '{pooling}'; set embedding\.pooling"
    ):
        load(folders[model_type, False], "torch", pooling)


def test_auto_is_the_pooling_that_older_configs_meant(folders: dict[tuple[str, bool], Path]) -> None:
    for model_type in ("vit", "deit", "vit_msn", "dinov2", "dinov2_with_registers", "beit", "data2vec-vision"):
        assert resolved(folders[model_type, True]).pooling("auto") == "cls"


@pytest.mark.parametrize(
    ("model_type", "lacking"),
    [("clip", "vis"), ("clip", "vision_model."), ("clip", "visual_projection."), ("siglip", "vision_model.")],
)
def test_a_folder_without_weights_of_its_image_encoder_is_one_sentence_that_names_the_families(
    model_type: str, lacking: str, tmp_path: Path
) -> None:
    lakes.tiny_encoder(tmp_path, model_type)
    weights = load_file(tmp_path / "model.safetensors")
    text = {name: weight for name, weight in weights.items() if not name.startswith(lacking)}
    save_file(text, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=rf"^The weights of \S+ lack \S+, .* {', '.join(FAMILY_OF)}\.$"):
        resolved(tmp_path)
