"""The xla engine on JAX's CPU backend, against the torch engine. No TPU has run it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import EmbeddingConfig, ModelConfig
from pipeline.engines import loading
from pipeline.models.families import FAMILIES
from pipeline.models.model import resolve
from pipeline.storage.filesystems import Storage
from tests.support import lakes

HEADED = ("vit", "deit", "vit_msn", "dinov2", "dinov2_with_registers", "beit", "data2vec-vision")
MODELS = {family.model_types[0]: False for family in FAMILIES} | dict.fromkeys(HEADED, True)
"""Model types that the test runs, one of each family at least, and whether they have a head."""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pixels, a model of each type, and what the engine gave for them."""
    pytest.importorskip("torchax", reason="the xla engine needs torchax and JAX")
    folder = tmp_path_factory.mktemp("xla")
    pixels = np.random.default_rng(2).integers(0, 256, (7, lakes.SIZE, lakes.SIZE, 3), dtype=np.uint8)
    np.save(folder / "pixels.npy", pixels)
    models = [f"{lakes.tiny_encoder(folder / name, name, head=head)}@fp32" for name, head in MODELS.items()]
    models += [f"{folder / 'vit'}@bf16", f"{folder / 'vit'}@fp16"]
    command = [sys.executable, "-m", "tests.support.xla_child", str(folder / "pixels.npy"), *models]
    done = subprocess.run(command, env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "refusal").write_text(done.stdout)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MODELS)
def test_xla_gives_the_results_of_torch_for_batches_of_any_size(model_type: str, lake: Path) -> None:
    config = ModelConfig(name=str(lake / model_type), precision="fp32")
    model = resolve(config, Storage())
    torch = loading.load_engine(model, config, EmbeddingConfig(), engine="torch", top_k=5, threads=1)
    pixels = np.load(lake / "pixels.npy")
    for number, batch in enumerate((pixels[:3], pixels[3:7])):
        found, expected = np.load(lake / f"{model_type}@fp32.{number}.npz"), torch.predict(batch)
        assert (found["indices"].dtype, found["embeddings"].dtype) == (np.int32, np.float32)
        assert found["indices"].tolist() == expected.indices.tolist()
        assert np.allclose(found["scores"], expected.scores, atol=1e-4)
        assert np.allclose(found["embeddings"], expected.embeddings, atol=1e-3 * np.abs(expected.embeddings).max())


@pytest.mark.slow
def test_bf16_is_near_fp32_and_fp16_is_refused(lake: Path) -> None:
    exact, near = (np.load(lake / f"vit@{one}.0.npz")["embeddings"] for one in ("fp32", "bf16"))
    cosines = (exact * near).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(near, axis=1)
    assert 0.99 < cosines.min() < 0.9999999
    assert "xla has no fp16" in (lake / "refusal").read_text()
