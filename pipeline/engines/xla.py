"""The XLA engine: TPUs, by JAX; torchax makes a JAX function of the PyTorch model. JAX on a CPU runs it, too."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torchax
from numpy.typing import NDArray

from pipeline.engines.base import Engine, Scored, padded
from pipeline.engines.network import Network
from pipeline.errors import EngineError, OutOfMemory, first_line
from pipeline.models.model import Model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MULTIPLIED = {"fp32": "float32", "bf16": "default"}
"""A TPU multiplies float32 in bf16 unless it is told otherwise."""


class XlaEngine(Engine):
    """The classifier on the first device that JAX sees, compiled for each power of two; batches are padded."""

    in_flight = 2  # JAX does not wait for what it has begun

    def __init__(self, model: Model, *, precision: str, pooling: str, top_k: int, share: float = 1.0) -> None:
        """With a `share` of 0 it computes on the CPU. Raises: ModelError, EngineError."""
        self._device = (jax.devices() if share else jax.devices("cpu"))[0]
        self.device = self._device.device_kind
        self.precision = _precision(precision, self._device.platform)
        network = Network(model, pooling)
        network.classifier.to(DTYPES[self.precision])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it looks at every attribute, the deprecated ones, too
            states, forward = torchax.extract_jax(network)
        self._states = jax.device_put(states, self._device)

        def score(states: Any, pixels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            logits, embedding = forward(states, (pixels,))
            best, indices = jax.lax.top_k(jax.nn.softmax(logits.astype(jnp.float32), axis=1), top_k)
            return indices.astype(jnp.int32), best, embedding.astype(jnp.float32)

        self._score = jax.jit(score)

    def start(self, pixels: NDArray[np.uint8]) -> Callable[[], Scored]:
        """See `Engine.start`."""
        images = len(pixels)
        batch = np.zeros((padded(images), *pixels.shape[1:]), np.uint8)
        batch[:images] = pixels
        with _out_of_memory_told(), jax.default_matmul_precision(MULTIPLIED[self.precision]):
            results = self._score(self._states, jax.device_put(batch, self._device))

        def wait() -> Scored:
            with _out_of_memory_told():
                return Scored(*(np.array(one[:images]) for one in results))

        return wait


@contextmanager
def _out_of_memory_told() -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise OutOfMemory(first_line(error)) from error
        raise


def _precision(asked: str, platform: str) -> str:
    """`auto` is bf16 on TPUs, which are made for it, and fp32 elsewhere."""
    if asked == "fp16":
        raise EngineError("The xla engine has no fp16; use precision bf16 or fp32.")
    if asked == "auto":
        return "bf16" if platform == "tpu" else "fp32"
    return asked
