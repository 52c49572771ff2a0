"""The PyTorch engine on a CUDA device, and the same on the CPU, which every machine has."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.config import EmbeddingConfig, ModelConfig
from pipeline.engines import loading
from pipeline.engines.base import Engine
from pipeline.engines.batch_sizer import BatchSizer, SettledSize
from pipeline.engines.batching import MicroBatches
from pipeline.engines.torch import is_out_of_memory
from pipeline.errors import OutOfMemory
from pipeline.models.model import Model, resolve
from pipeline.storage.filesystems import Storage
from tests.support import lakes

needs_cuda = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
on_devices = pytest.mark.parametrize("share", [0.0, pytest.param(1.0, marks=needs_cuda)], ids=["cpu", "cuda"])
"""The share of a CUDA device that the engine gets."""
Load = Callable[..., Engine]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return resolve(ModelConfig(name=str(lakes.tiny_vit(tmp_path_factory.mktemp("vit")))), Storage())


@pytest.fixture
def load(model: Model) -> Load:
    def loaded(share: float, precision: str = "fp32", **settings: bool) -> Engine:
        config = ModelConfig.model_validate({"name": model.name, "precision": precision, **settings})
        options = {"engine": "torch", "top_k": 3, "threads": 1, "share": share}
        return loading.load_engine(model, config, EmbeddingConfig(), **options)  # type: ignore[arg-type]

    return loaded


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, lakes.SIZE, lakes.SIZE, 3), dtype=np.uint8)


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return found


@on_devices
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.99999), ("bf16", 0.999)])
def test_the_vectors_are_those_of_transformers(
    load: Load, model: Model, share: float, precision: str, least: float
) -> None:
    pixels = images(9)
    found = load(share, precision).predict(pixels)
    true = loading.load_reference(model, EmbeddingConfig(), 3).predict(pixels)
    assert cosines(found.embeddings, true.embeddings).min() > least
    assert (found.indices[:, 0] == true.indices[:, 0]).mean() > 0.8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fp16_on_cuda_gives_the_vectors_of_transformers(load: Load, model: Model) -> None:
    pixels = images(9)
    true = loading.load_reference(model, EmbeddingConfig(), 3).predict(pixels)
    assert cosines(load(1.0, "fp16").predict(pixels).embeddings, true.embeddings).min() > 0.999


@on_devices
def test_batches_in_flight_keep_their_rows_and_may_be_overwritten_at_once(load: Load, share: float) -> None:
    engine, pixels = load(share), images(64)
    expected = np.concatenate([engine.predict(pixels[at : at + 1]).embeddings for at in range(len(pixels))])
    borrowed = np.empty((5, *pixels.shape[1:]), np.uint8)

    def start(first: int, end: int) -> Callable[[], NDArray[np.float32]]:
        borrowed[: end - first] = pixels[first:end]
        wait = engine.start(borrowed[: end - first])
        borrowed[:] = 0
        return lambda: wait().embeddings

    sizer = BatchSizer(4, SettledSize(4))
    found = [one for one in MicroBatches(sizer, start, engine.in_flight).of_block(len(pixels)) if one is not None]
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_compiled_model_on_cuda_gives_the_same_vectors_for_every_batch_size(load: Load) -> None:
    plain, compiled = load(1.0), load(1.0, compile=True)
    for count in (1, 3, 8):
        pixels = images(count, seed=count)
        found = cosines(plain.predict(pixels).embeddings, compiled.predict(pixels).embeddings)
        assert found.min() > 0.9999


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_after_a_batch_that_cuda_cannot_hold_smaller_ones_give_every_row(load: Load) -> None:
    engine, pixels = load(1.0), images(20_000)
    expected = engine.predict(pixels[-8:]).embeddings
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.005)
    try:
        with pytest.raises(OutOfMemory):
            engine.predict(pixels)
        sizer = BatchSizer(16_384, SettledSize(16_384))
        found = list(
            MicroBatches(sizer, lambda a, b: engine.start(pixels[a:b]), engine.in_flight).of_block(len(pixels))
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert None not in found
    assert sizer.too_large > 0
    np.testing.assert_allclose(np.concatenate([one.embeddings for one in found if one])[-8:], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("error", "lacked"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error: RuntimeError, lacked: bool) -> None:
    assert is_out_of_memory(error) is lacked
