"""What every engine does: uint8 pixels in, labels and embeddings out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scored:
    """Results of B images, in order.

    `indices` int32 (B, k) and `scores` float32 (B, k): the classes with the highest softmax scores, best
    first. `embeddings` float32 (B, D): the pooled last hidden state, not normalised.
    """

    indices: NDArray[np.int32]
    scores: NDArray[np.float32]
    embeddings: NDArray[np.float32]


class Engine(ABC):
    """A model on one device, which works best with `in_flight` batches at once."""

    device: str
    precision: str
    in_flight: int = 1

    @abstractmethod
    def start(self, pixels: NDArray[np.uint8]) -> Callable[[], Scored]:
        """Begin to score `pixels`, uint8 (B, H, W, 3) RGB; what it returns waits for the result.

        `pixels` may change once this has returned. Results are asked for in the order of their starts, and no more
        than `in_flight` are open. Both calls raise OutOfMemory.
        """

    def predict(self, pixels: NDArray[np.uint8]) -> Scored:
        """Score one batch and wait for it. Raises: OutOfMemory."""
        return self.start(pixels)()


def padded(images: int) -> int:
    """The size that a batch is padded to where each size is compiled: the next power of two."""
    return 1 << (images - 1).bit_length()


def top_k(logits: NDArray[Any], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Indices int32 and softmax scores float32, both (B, k), best first; a tie goes to the lower index."""
    logits = logits.astype(np.float32)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = exponents / exponents.sum(axis=1, keepdims=True)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order.astype(np.int32), np.take_along_axis(scores, order, axis=1)
