"""What every engine does: uint8 pixels in, labels and embeddings out."""

from dataclasses import dataclass
from typing import Any, Protocol

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


class Engine(Protocol):
    """A model on one device."""

    device: str
    precision: str

    def predict(self, pixels: NDArray[np.uint8]) -> Scored:
        """Score `pixels`, uint8 (B, H, W, 3) RGB. Raises: OutOfMemory."""
        ...


def top_k(logits: NDArray[Any], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Indices int32 and softmax scores float32, both (B, k), best first; a tie goes to the lower index."""
    logits = logits.astype(np.float32)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = exponents / exponents.sum(axis=1, keepdims=True)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order.astype(np.int32), np.take_along_axis(scores, order, axis=1)
