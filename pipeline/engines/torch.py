"""The PyTorch engine, for CUDA and CPUs."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.engines.base import Engine, Scored, padded
from pipeline.engines.network import Network
from pipeline.errors import EngineError, OutOfMemory
from pipeline.models.model import Model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_NO_MEMORY = (
    "not enough memory",  # the CPU allocator
    "CUDA error: out of memory",  # the driver, as for page-locked memory
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
Results = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Indices int32 (B, k), scores float32 (B, k), embeddings float32 (B, D)."""


class TorchEngine(Engine):
    """The classifier in PyTorch, on the first CUDA device that Ray assigns, or on the CPU if there is none."""

    def __init__(
        self,
        model: Model,
        *,
        precision: str,
        pooling: str,
        top_k: int,
        threads: int,
        compiled: bool = False,
        share: float = 1.0,
    ) -> None:
        """Load the weights onto the device.

        `compiled` uses torch.compile, which compiles once for each batch size: batches are padded to powers of
        two. The engine uses at most the `share` of a CUDA device's memory; with 0 it computes on the CPU.

        Raises: ModelError, EngineError if the device does not have the precision.
        """
        on_cuda = share > 0 and torch.cuda.is_available()
        self._device = torch.device("cuda" if on_cuda else "cpu")
        if on_cuda and share < 1:
            torch.cuda.set_per_process_memory_fraction(share)
        self.device = torch.cuda.get_device_name() if on_cuda else f"cpu ({threads} threads)"
        self.precision = _precision(precision, self._device)
        self.in_flight = 2 if on_cuda else 1
        self._top_k, self._pad = top_k, compiled
        if not on_cuda:
            torch.set_num_threads(threads)
        self._network = Network(model, pooling).to(self._device)
        self._network.model.to(DTYPES[self.precision])
        self._score = torch.compile(self._results, dynamic=False) if compiled else self._results
        self._lanes = deque(_Lane() for _ in range(self.in_flight if on_cuda else 0))
        self._copying = torch.cuda.Stream() if on_cuda else None

    def start(self, pixels: NDArray[np.uint8]) -> Callable[[], Scored]:
        """See `Engine.start`. The device computes the top k: only k classes and the embedding are downloaded."""
        images = len(pixels)
        size = padded(images) if self._pad else images
        with _translating_out_of_memory(), torch.inference_mode():
            if not self._lanes:
                batch = torch.zeros((size, *pixels.shape[1:]), dtype=torch.uint8)
                np.copyto(batch.numpy()[:images], pixels)
                results = self._score(batch)
                return lambda: _scored(results, images)
            lane = self._lanes[0]
            self._lanes.rotate(-1)
            results = lane.download(self._score(lane.upload(pixels, size, self._device, self._copying)))

        def wait() -> Scored:
            with _translating_out_of_memory():
                lane.finished.synchronize()
            return _scored(results, images)

        return wait

    def _results(self, batch: torch.Tensor) -> Results:
        """Map pixels uint8 (B, H, W, 3) to results, on the device."""
        logits, embedding = self._network(batch)
        scores, indices = logits.float().softmax(dim=1).topk(self._top_k, dim=1)
        return indices.to(torch.int32), scores, embedding.float()


class _Lane:
    """One batch on its way through CUDA. Its memory is page-locked, so that copies overlap with computing."""

    def __init__(self) -> None:
        self.finished = torch.cuda.Event()
        self._pixels = torch.empty(0, dtype=torch.uint8)

    def upload(
        self, pixels: NDArray[np.uint8], size: int, device: torch.device, stream: torch.cuda.Stream
    ) -> torch.Tensor:
        """Copy a batch, padded to `size`, to the device on `stream`. Work queued later waits for the copy."""
        self.finished.synchronize()  # the memory may still be in use by a batch that was given up
        if len(self._pixels) < size:
            self._pixels = torch.zeros((size, *pixels.shape[1:]), dtype=torch.uint8, pin_memory=True)
        np.copyto(self._pixels.numpy()[: len(pixels)], pixels)
        with torch.cuda.stream(stream):
            batch = self._pixels[:size].to(device, non_blocking=True)
        torch.cuda.current_stream().wait_stream(stream)
        batch.record_stream(torch.cuda.current_stream())
        return batch

    def download(self, results: Results) -> Results:
        """Copy results to main memory; they are there once `finished` has happened."""
        copies = [torch.empty(one.shape, dtype=one.dtype, pin_memory=True) for one in results]
        for copy, one in zip(copies, results, strict=True):
            copy.copy_(one, non_blocking=True)
        self.finished.record()
        return copies[0], copies[1], copies[2]


def _scored(results: Results, images: int) -> Scored:
    indices, scores, embeddings = (one[:images].numpy() for one in results)
    return Scored(indices, scores, embeddings)


@contextmanager
def _translating_out_of_memory() -> Iterator[None]:
    """Raises: OutOfMemory in place of PyTorch's errors."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        raise OutOfMemory(str(error)) from error


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether PyTorch or a library below it lacked memory. Only its own allocator has a type for that."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)


def _precision(asked: str, device: torch.device) -> str:
    """Resolve `auto`: bf16 if the CUDA device has it, fp16 on older devices, fp32 on CPUs. Raises: EngineError."""
    if device.type == "cpu":
        if asked == "fp16":
            raise EngineError("The engine torch has no fp16 on CPUs; set model.precision to fp32 or bf16.")
        return "fp32" if asked == "auto" else asked
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if asked == "bf16" and not bf16:
        raise EngineError("This CUDA device has no bf16; set model.precision to fp16 or fp32.")
    return ("bf16" if bf16 else "fp16") if asked == "auto" else asked
