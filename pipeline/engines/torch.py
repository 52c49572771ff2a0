"""The PyTorch engine: CUDA, and CPU."""

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
Results = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class TorchEngine(Engine):
    """The classifier in PyTorch, on the first CUDA device that Ray gives, else on the CPU."""

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
        """`compiled` uses torch.compile, and pads batches to powers of two, for each of which it compiles once. It
        takes at most the `share` of a CUDA device's memory; with 0 it computes on the CPU.

        Raises: ModelError, EngineError for a precision that the device does not have.
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
        self._network.classifier.to(DTYPES[self.precision])
        self._score = torch.compile(self._results, dynamic=False) if compiled else self._results
        self._lanes = deque(_Lane() for _ in range(self.in_flight if on_cuda else 0))
        self._copying = torch.cuda.Stream() if on_cuda else None

    def start(self, pixels: NDArray[np.uint8]) -> Callable[[], Scored]:
        """See `Engine.start`. Top-k is taken on the device: only k classes and the embedding come back."""
        images = len(pixels)
        size = padded(images) if self._pad else images
        with _out_of_memory_told(), torch.inference_mode():
            if not self._lanes:
                batch = torch.zeros((size, *pixels.shape[1:]), dtype=torch.uint8)
                np.copyto(batch.numpy()[:images], pixels)
                results = self._score(batch)
                return lambda: _scored(results, images)
            lane = self._lanes[0]
            self._lanes.rotate(-1)
            results = lane.download(self._score(lane.upload(pixels, size, self._device, self._copying)))

        def wait() -> Scored:
            with _out_of_memory_told():
                lane.finished.synchronize()
            return _scored(results, images)

        return wait

    def _results(self, batch: torch.Tensor) -> Results:
        """Of uint8 (B, H, W, 3): indices int32 (B, k), scores float32 (B, k), embeddings float32 (B, D)."""
        logits, embedding = self._network(batch)
        scores, indices = logits.float().softmax(dim=1).topk(self._top_k, dim=1)
        return indices.to(torch.int32), scores, embedding.float()


class _Lane:
    """One batch on its way through CUDA: page-locked memory on both ends, so that copies overlap with work."""

    def __init__(self) -> None:
        self.finished = torch.cuda.Event()
        self._pixels = torch.empty(0, dtype=torch.uint8)

    def upload(
        self, pixels: NDArray[np.uint8], size: int, device: torch.device, stream: torch.cuda.Stream
    ) -> torch.Tensor:
        """The batch on the device, once work that is queued from now on gets to it."""
        self.finished.synchronize()  # a batch that was given up may still be copied from here
        if len(self._pixels) < size:
            self._pixels = torch.zeros((size, *pixels.shape[1:]), dtype=torch.uint8, pin_memory=True)
        np.copyto(self._pixels.numpy()[: len(pixels)], pixels)
        with torch.cuda.stream(stream):
            batch = self._pixels[:size].to(device, non_blocking=True)
        torch.cuda.current_stream().wait_stream(stream)
        batch.record_stream(torch.cuda.current_stream())
        return batch

    def download(self, results: Results) -> Results:
        """The results in main memory, once `finished` is."""
        copies = [torch.empty(one.shape, dtype=one.dtype, pin_memory=True) for one in results]
        for copy, one in zip(copies, results, strict=True):
            copy.copy_(one, non_blocking=True)
        self.finished.record()
        return copies[0], copies[1], copies[2]


def _scored(results: Results, images: int) -> Scored:
    indices, scores, embeddings = (one[:images].numpy() for one in results)
    return Scored(indices, scores, embeddings)


@contextmanager
def _out_of_memory_told() -> Iterator[None]:
    try:
        yield
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
