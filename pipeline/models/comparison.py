"""Compare two sets of labels and vectors of the same images. This module does not know where they are from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOP_LABELS = 5
"""How many of the best labels are compared, if a model has this many."""


@dataclass(frozen=True)
class ModelOutputs:
    """Labels and vectors of B images: `indices` int32 (B, k), best first, and `embeddings` float32 (B, D)."""

    indices: NDArray[np.int32]
    embeddings: NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """How far two sets of outputs agree, for the images of one dataset, or of all if `dataset` is None.

    `cosine_mean` and `cosine_min` are of the vectors. `top1` is the share of images with the same best label, and
    `top5` the mean share of the best `TOP_LABELS` that both sets have; both are None for a model without a head.
    """

    dataset: str | None
    images: int
    cosine_mean: float
    cosine_min: float
    top1: float | None
    top5: float | None


@dataclass(frozen=True)
class Limits:
    """The lowest values that pass. fp32 and bf16 are far above; int8 of a ViT-S/14 has 0.9985 and 0.94."""

    cosine_mean: float = 0.997
    top1: float = 0.9

    def shortfall(self, agreement: Agreement) -> str | None:
        """Return which values are below their limits, as text; None if none is."""
        found = {"mean cosine": (agreement.cosine_mean, self.cosine_mean)}
        if agreement.top1 is not None:
            found["top-1 agreement"] = (agreement.top1, self.top1)
        short = [f"{name} {got:.4f} < {least:g}" for name, (got, least) in found.items() if not got >= least]
        return " and ".join(short) or None


def compare(datasets: Sequence[str], found: ModelOutputs, reference: ModelOutputs) -> list[Agreement]:
    """Return the agreement of each dataset, ordered by name, and last that of all images.

    Image i belongs to `datasets[i]`; there is at least one image.
    """
    cosines = _cosines(found.embeddings, reference.embeddings)
    k = min(TOP_LABELS, found.indices.shape[1], reference.indices.shape[1])
    same = found.indices[:, :k, None] == reference.indices[:, None, :k]
    names = np.array(datasets)

    def over(dataset: str | None, chosen: NDArray[np.bool_]) -> Agreement:
        top1 = float(same[chosen, 0, 0].mean()) if k else None
        top5 = float(same[chosen].any(axis=2).mean()) if k else None
        cosine = cosines[chosen]
        return Agreement(dataset, int(chosen.sum()), float(cosine.mean()), float(cosine.min()), top1, top5)

    every = np.ones(len(names), dtype=bool)
    return [*(over(one, names == one) for one in sorted(set(datasets))), over(None, every)]


def concatenate(batches: Iterable[ModelOutputs]) -> ModelOutputs:
    """Join batches in their order; there is at least one."""
    kept = list(batches)
    indices = np.concatenate([one.indices for one in kept])
    return ModelOutputs(indices, np.concatenate([one.embeddings for one in kept]))


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return float64 (B,), which is 0 where a vector is zero."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a64, axis=1) * np.linalg.norm(b64, axis=1)
    cosines: NDArray[np.float64] = (a64 * b64).sum(axis=1) / np.where(norms > 0, norms, 1.0)
    return cosines
