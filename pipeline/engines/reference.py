"""What the other engines are measured against: plain transformers in float32, the slow and simple way."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.engines.base import Engine, Scored, top_k
from pipeline.engines.network import load_classifier
from pipeline.models.model import Model


class ReferenceEngine(Engine):
    """A classifier as transformers loads it; labels and vectors are two forward passes."""

    def __init__(self, model: Model, *, pooling: str, top_k: int) -> None:
        """Raises: ModelError."""
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.precision = "fp32"
        self._steps, self._pooling, self._top_k = model.preprocessing, pooling, top_k
        self._classifier = load_classifier(model).to(self.device)
        patch = int(self._classifier.config.patch_size)
        self._patches = (self._steps.height // patch) * (self._steps.width // patch)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def start(self, pixels: NDArray[np.uint8]) -> Callable[[], Scored]:
        """See `Engine.start`."""
        scale, bias = (np.array(one, np.float32) for one in (self._steps.scale, self._steps.bias))
        values = pixels.astype(np.float32) * scale + bias
        batch = torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2))).to(self.device)
        logits = self._classifier(pixel_values=batch).logits
        hidden = self._classifier.base_model(pixel_values=batch).last_hidden_state
        pooled = hidden[:, 0] if self._pooling == "cls" else hidden[:, -self._patches :].mean(dim=1)
        indices, scores = top_k(logits.cpu().numpy(), self._top_k)
        scored = Scored(indices, scores, pooled.float().cpu().numpy())
        return lambda: scored
