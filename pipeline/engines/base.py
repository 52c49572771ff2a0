"""The interface of an engine: uint8 pixels in, labels and embeddings out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scored:
    """The results of B images, in order.

    `indices` int32 (B, k) and `scores` float32 (B, k) are the classes with the highest softmax scores, best first.
    `embeddings` float32 (B, D) are the pooled last hidden state, not normalised.
    """

    indices: NDArray[np.int32]
    scores: NDArray[np.float32]
    embeddings: NDArray[np.float32]


class Engine(ABC):
    """A model on one device.

    `device` is its name, `precision` the one that it computes in, and `in_flight` the number of batches that the
    device should have at once.
    """

    device: str
    precision: str
    in_flight: int = 1

    @abstractmethod
    def start(self, pixels: NDArray[np.uint8]) -> Callable[[], Scored]:
        """Start a batch of `pixels`, uint8 (B, H, W, 3) RGB, and return a function that waits for its results.

        `pixels` may change once this has returned. The caller waits for batches in the order of their starts, and
        has at most `in_flight` open. Raises: OutOfMemory, in either call.
        """

    def predict(self, pixels: NDArray[np.uint8]) -> Scored:
        """Score one batch and wait for it. Raises: OutOfMemory."""
        return self.start(pixels)()


def padded(images: int) -> int:
    """Return the next power of two: engines that compile for each batch size pad batches to it."""
    return 1 << (images - 1).bit_length()


def top_k(logits: NDArray[Any], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return indices int32 and softmax scores float32, both (B, k), best first. The lower index wins a tie.

    `logits` are (B, C), of any floating-point type.
    """
    logits = logits.astype(np.float32)
    if not logits.shape[1]:  # a model without a head
        return np.empty(logits.shape, np.int32), logits
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = exponents / exponents.sum(axis=1, keepdims=True)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order.astype(np.int32), np.take_along_axis(scores, order, axis=1)
