"""The reference engine: plain transformers in float32, slow and simple, to compare the other engines with."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.engines.base import Engine, Scored, top_k
from pipeline.engines.pretrained import load_pretrained, patch_count, pool
from pipeline.models.model import Model


class ReferenceEngine(Engine):
    """A classifier as transformers loads it. It computes labels and vectors in two forward passes."""

    def __init__(self, model: Model, *, pooling: str, top_k: int) -> None:
        """Load the weights on the CUDA device if there is one. Raises: ModelError."""
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.precision = "fp32"
        self._steps, self._top_k, self._has_head = model.preprocessing, top_k, bool(model.labels)
        self._pooling, self._pooled_output = model.pooling(pooling), model.family.pooled_output
        self._model = load_pretrained(model).to(self.device)
        self._patches = patch_count(self._model, model) if self._pooling == "mean" else 0

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def start(self, pixels: NDArray[np.uint8]) -> Callable[[], Scored]:
        """See `Engine.start`."""
        scale, bias = (np.array(one, np.float32) for one in (self._steps.scale, self._steps.bias))
        values = pixels.astype(np.float32) * scale + bias
        batch = torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2))).to(self.device)
        output = (self._model.base_model if self._has_head else self._model)(pixel_values=batch)
        embeddings = pool(output, self._pooling, self._patches, self._pooled_output).float()
        logits = self._model(pixel_values=batch).logits if self._has_head else embeddings[:, :0]
        scored = Scored(*top_k(logits.cpu().numpy(), self._top_k), embeddings.cpu().numpy())
        return lambda: scored
