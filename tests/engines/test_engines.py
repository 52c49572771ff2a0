"""The engines for CPUs against plain transformers, for every supported model type."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from pipeline.config import DecodeConfig, EmbeddingConfig, ModelConfig
from pipeline.engines import loading
from pipeline.engines.base import Engine
from pipeline.errors import EngineError, ModelError
from pipeline.models.model import Model, resolve
from pipeline.storage.filesystems import Storage
from tests.support import lakes

PREFIX = {"deit": 2, "dinov2_with_registers": 5}
"""Tokens before the patches: CLS, and DeiT's distillation token or the registers; 1 for all others."""


CLASSIFIERS = ("vit", "deit", "vit_msn", "dinov2", "dinov2_with_registers", "beit", "data2vec-vision")


@pytest.fixture(scope="module", params=CLASSIFIERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier of one model type, with random weights, as a Hugging Face folder."""
    return lakes.tiny_encoder(tmp_path_factory.mktemp(request.param), request.param, head=True)


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (11, 32, 32, 3), dtype=np.uint8)


def reference(folder: Path, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Softmax scores, CLS vectors and mean patch vectors, computed by transformers alone."""
    network = transformers.AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    values = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        hidden = network.base_model(values).last_hidden_state
        scores = network(values).logits.softmax(1)
    first_patch = PREFIX.get(network.config.model_type, 1)
    return scores.numpy(), hidden[:, 0].numpy(), hidden[:, first_patch:].mean(1).numpy()


def load(
    folder: Path, engine: str, pooling: Any = "cls", precision: Any = "fp32", *, compiled: bool = False
) -> Engine:
    config = ModelConfig(name=str(folder), precision=precision, compile=compiled)
    model = resolve(config, Storage())
    return loading.load_engine(model, config, EmbeddingConfig(pooling=pooling), engine=engine, top_k=5, threads=2)


@pytest.mark.parametrize(("engine", "pooling"), [("openvino", "cls"), ("torch", "cls"), ("torch", "mean")])
def test_an_engine_gives_the_scores_and_vectors_of_transformers(
    engine: str, pooling: str, folder: Path, pixels: NDArray[np.uint8]
) -> None:
    scores, cls, mean = reference(folder, pixels)
    expected = cls if pooling == "cls" else mean
    found = load(folder, engine, pooling).predict(pixels)
    assert (found.indices.dtype, found.scores.dtype, found.embeddings.dtype) == (np.int32, np.float32, np.float32)
    assert np.allclose(found.embeddings, expected, atol=1e-3 * np.abs(expected).max())
    assert (cosine(found.embeddings, expected) > 0.99999).all()
    best = np.take_along_axis(scores, found.indices.astype(np.int64), axis=1)
    assert np.allclose(found.scores, best, atol=1e-4)
    assert np.allclose(best, np.sort(scores, axis=1)[:, ::-1][:, :5], atol=1e-4)


def test_openvino_gives_the_mean_of_the_patches_as_torch_does(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    vit(tmp_path)
    expected, found = (
        load(tmp_path, engine, "mean").predict(pixels).embeddings for engine in ("torch", "openvino")
    )
    assert np.allclose(found, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_an_image_has_the_same_result_in_a_batch_of_any_size(
    engine: str, folder: Path, pixels: NDArray[np.uint8]
) -> None:
    loaded = load(folder, engine)
    together = loaded.predict(pixels)
    apart = [loaded.predict(pixels[i : i + 1]) for i in range(len(pixels))]
    assert np.allclose(together.embeddings, np.concatenate([one.embeddings for one in apart]), atol=1e-4)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_bf16_is_close_to_fp32(engine: str, folder: Path, pixels: NDArray[np.uint8]) -> None:
    try:
        loaded = load(folder, engine, precision="bf16")
    except EngineError as error:
        pytest.skip(str(error))
    assert loaded.precision == "bf16"
    _, cls, _ = reference(folder, pixels)
    assert (cosine(loaded.predict(pixels).embeddings, cls) > 0.99).all()


def cosine(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    products: NDArray[Any] = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return products


def vit(folder: Path, **changes: Any) -> Model:
    network = transformers.ViTForImageClassification(
        transformers.ViTConfig(**({"num_labels": 9} | lakes.SMALL | changes))
    )
    network.save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return resolve(ModelConfig(name=str(folder)), Storage())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPUs")
def test_a_compiled_model_gives_the_same_results_for_padded_batches(tmp_path: Path) -> None:
    """In a process of its own: where torchax or NNCF was imported before, torch compiles nothing."""
    script = f"from tests.engines.test_engines import *; compare_compiled(Path({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr


def compare_compiled(folder: Path) -> None:
    vit(folder, num_hidden_layers=1)
    pixels = np.random.default_rng(5).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    plain, compiled = load(folder, "torch"), load(folder, "torch", compiled=True)
    for count in (4, 3):
        expected, found = plain.predict(pixels[:count]), compiled.predict(pixels[:count])
        assert found.indices.shape == expected.indices.shape
        assert np.allclose(found.embeddings, expected.embeddings, atol=1e-5)
        assert np.allclose(found.scores, expected.scores, atol=1e-5)


def test_a_model_with_fewer_labels_than_top_k_gives_all_of_them(tmp_path: Path) -> None:
    vit(tmp_path, num_labels=2)
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    for engine in ("openvino", "torch"):
        assert load(tmp_path, engine).predict(pixels).indices.shape == (1, 2)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_pixels_may_be_read_only_and_results_outlive_the_next_batch(engine: str, tmp_path: Path) -> None:
    vit(tmp_path)
    pixels = np.random.default_rng(3).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    pixels.flags.writeable = False
    loaded = load(tmp_path, engine)
    first = loaded.predict(pixels)
    kept = first.embeddings.copy(), first.scores.copy(), first.indices.copy()
    loaded.predict(255 - pixels)
    assert np.array_equal(first.embeddings, kept[0])
    assert np.array_equal(first.scores, kept[1])
    assert np.array_equal(first.indices, kept[2])


@pytest.mark.parametrize(("engine", "precision"), [("openvino", "fp16"), ("torch", "fp16")])
def test_a_precision_that_the_device_lacks_is_refused(engine: str, precision: str, tmp_path: Path) -> None:
    vit(tmp_path)
    with pytest.raises(EngineError, match=rf"{engine} has no fp16 on CPUs; set model\.precision"):
        load(tmp_path, engine, precision=precision)


def test_each_model_and_pooling_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKELENS_CACHE", str(tmp_path / "cache"))
    vit(tmp_path / "a")
    load(tmp_path / "a", "openvino")
    (kept,) = (tmp_path / "cache" / "openvino").iterdir()
    written = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    load(tmp_path / "a", "openvino")
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == written
    load(tmp_path / "a", "openvino", "mean")
    vit(tmp_path / "b", layer_norm_eps=1e-3)
    load(tmp_path / "b", "openvino")
    assert len(list((tmp_path / "cache" / "openvino").iterdir())) == 3


def test_the_error_for_a_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vit(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    monkeypatch.delitem(__import__("sys").modules, "pipeline.engines.openvino", raising=False)
    with pytest.raises(EngineError, match=r"needs the package openvino, .* `pip install openvino`\.$"):
        load(tmp_path, "openvino")


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path: Path) -> None:
    vit(tmp_path)
    settings = (tmp_path / "config.json").read_text().replace('"intermediate_size": 96', '"intermediate_size": 64')
    (tmp_path / "config.json").write_text(settings)
    with pytest.raises(ModelError, match=r"^The weights of .* cannot be loaded|not a trained image classifier"):
        load(tmp_path, "torch")


def test_the_fingerprint_is_the_same_for_every_engine_and_precision(tmp_path: Path) -> None:
    model = vit(tmp_path)
    assert "precision" not in model.space(EmbeddingConfig(), DecodeConfig())
