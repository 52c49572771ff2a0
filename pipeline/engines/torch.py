"""The PyTorch engine: CUDA, and CPU."""

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.engines.base import Scored
from pipeline.engines.network import Network
from pipeline.errors import EngineError, OutOfMemory
from pipeline.model import Model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """The classifier in PyTorch, on the first CUDA device that Ray gives, else on the CPU."""

    def __init__(self, model: Model, *, precision: str, pooling: str, top_k: int, threads: int) -> None:
        """Raises: ModelError, EngineError for a precision that the device does not have."""
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.device = torch.cuda.get_device_name() if self._device.type == "cuda" else f"cpu ({threads} threads)"
        self.precision = _precision(precision, self._device)
        self._top_k = top_k
        if self._device.type == "cpu":
            torch.set_num_threads(threads)
        self._network = Network(model, pooling).to(self._device)
        self._network.classifier.to(DTYPES[self.precision])

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def predict(self, pixels: NDArray[np.uint8]) -> Scored:
        """See `Engine.predict`. Top-k is taken on the device: only k classes and the embedding come back."""
        try:
            batch = torch.tensor(pixels, device=self._device)  # copies: Arrow's buffers are read-only
            logits, embedding = self._network(batch)
            scores, indices = logits.float().softmax(dim=1).topk(self._top_k, dim=1)
            return Scored(
                indices.to(torch.int32).cpu().numpy(), scores.cpu().numpy(), embedding.float().cpu().numpy()
            )
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise OutOfMemory(str(error)) from error
        except RuntimeError as error:
            if "not enough memory" in str(error):  # what the CPU allocator says
                raise OutOfMemory(str(error)) from error
            raise


def _precision(asked: str, device: torch.device) -> str:
    """`auto` is bf16 where CUDA has it, fp16 on older cards, fp32 on the CPU."""
    if device.type == "cpu":
        if asked == "fp16":
            raise EngineError("The torch engine has no fp16 on the CPU; use precision fp32 or bf16.")
        return "fp32" if asked == "auto" else asked
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if asked == "bf16" and not bf16:
        raise EngineError("This CUDA device has no bf16; use precision fp16 or fp32.")
    return ("bf16" if bf16 else "fp16") if asked == "auto" else asked
