"""The XLA engine, for TPUs and JAX's CPU backend. torchax turns the PyTorch model into a JAX function."""

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
MATMUL_PRECISION = {"fp32": "float32", "bf16": "default"}
"""JAX's matmul precision: by default, a TPU multiplies float32 in bf16."""


class XlaEngine(Engine):
    """The classifier on JAX's first device. It compiles once for each power of two, and pads batches."""

    in_flight = 2  # JAX returns before the device has finished

    def __init__(self, model: Model, *, precision: str, pooling: str, top_k: int, share: float = 1.0) -> None:
        """Load the weights onto the device; a `share` of 0 is the CPU.

        Raises: ModelError, EngineError if the engine does not have the precision.
        """
        self._device = (jax.devices() if share else jax.devices("cpu"))[0]
        self.device = self._device.device_kind
        self.precision = _precision(precision, self._device.platform)
        network = Network(model, pooling)
        network.model.to(DTYPES[self.precision])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchax reads every attribute, even deprecated ones
            states, forward = torchax.extract_jax(network)
        self._states = jax.device_put(states, self._device)

        def score(states: Any, pixels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            logits, embedding = forward(states, (pixels,))
            if not top_k:  # a model without a head
                return jnp.zeros((len(pixels), 0), jnp.int32), logits[:, :0], embedding.astype(jnp.float32)
            best, indices = jax.lax.top_k(jax.nn.softmax(logits.astype(jnp.float32), axis=1), top_k)
            return indices.astype(jnp.int32), best, embedding.astype(jnp.float32)

        self._score = jax.jit(score)

    def start(self, pixels: NDArray[np.uint8]) -> Callable[[], Scored]:
        """See `Engine.start`."""
        images = len(pixels)
        batch = np.zeros((padded(images), *pixels.shape[1:]), np.uint8)
        batch[:images] = pixels
        with _translating_out_of_memory(), jax.default_matmul_precision(MATMUL_PRECISION[self.precision]):
            results = self._score(self._states, jax.device_put(batch, self._device))

        def wait() -> Scored:
            with _translating_out_of_memory():
                return Scored(*(np.array(one[:images]) for one in results))

        return wait


@contextmanager
def _translating_out_of_memory() -> Iterator[None]:
    """Raises: OutOfMemory in place of JAX's error."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise OutOfMemory(first_line(error)) from error
        raise


def _precision(asked: str, platform: str) -> str:
    """Resolve `auto`: bf16 on TPUs, which are made for it, and fp32 elsewhere. Raises: EngineError."""
    if asked == "fp16":
        raise EngineError("The engine xla has no fp16; set model.precision to bf16 or fp32.")
    if asked == "auto":
        return "bf16" if platform == "tpu" else "fp32"
    return asked
