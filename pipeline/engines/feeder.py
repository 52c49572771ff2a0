"""Keep a device busy across blocks: the next block is on the device before the results of the last one are used.

The thread `feeder` alone calls the engine. The threads that bring blocks wait for their results, and use them
while the device works on the next block. This module knows no device, no torch and no Ray.
"""

import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.engines.batch_sizer import BatchSizer
from pipeline.engines.batching import MicroBatches

Result = TypeVar("Result")
Start = Callable[[NDArray[np.uint8]], Callable[[], Result]]
"""Starts a batch of pixels, and returns a function that waits for its result. See `Engine.start`."""


class Fed(Generic[Result]):
    """A block on its way through the device. Iterate it for its results, in order, one for each micro-batch.

    The result is None for one image that does not fit. After the last one, `worked_s` are the seconds that the
    device worked on the block, and `waited_s` those that it had waited for it. Raises: what the engine raises.
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.worked_s = self.waited_s = 0.0
        self._arrived: queue.SimpleQueue[tuple[Result | None] | BaseException | None] = queue.SimpleQueue()
        if not len(pixels):
            self.end()

    def put(self, result: Result | None) -> None:
        """Pass a result on to the thread that iterates."""
        self._arrived.put((result,))

    def end(self, error: BaseException | None = None) -> None:
        """Let the thread that iterates raise the error, or stop."""
        self._arrived.put(error)

    def __iter__(self) -> Iterator[Result | None]:
        while (found := self._arrived.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found[0]


class Feeder(Generic[Result]):
    """Takes blocks of any thread, and puts them through the device in the order of their arrival."""

    def __init__(self, start: Start[Result], sizer: BatchSizer, in_flight: int) -> None:
        arrived: queue.SimpleQueue[Fed[Result] | None] = queue.SimpleQueue()
        self._arrived = arrived
        feeding = _Feeding(start, sizer, in_flight, arrived)
        threading.Thread(target=feeding.run, daemon=True, name="feeder").start()
        weakref.finalize(self, arrived.put, None)

    def feed(self, pixels: NDArray[np.uint8]) -> Fed[Result]:
        """Hand over a block, uint8 (B, H, W, 3). Its pixels must not change before its last result is there."""
        fed: Fed[Result] = Fed(pixels)
        if len(pixels):
            self._arrived.put(fed)
        return fed


class _Feeding(Generic[Result]):
    """The work of the thread. It ends when None arrives."""

    def __init__(
        self,
        start: Start[Result],
        sizer: BatchSizer,
        in_flight: int,
        arrived: "queue.SimpleQueue[Fed[Result] | None]",
    ) -> None:
        self._start, self._sizer, self._in_flight, self._arrived = start, sizer, in_flight, arrived
        self._blocks: deque[_Place[Result]] = deque()
        self._batches = MicroBatches(sizer, self._start_batch, in_flight)
        self._free_s: float | None = None  # when the device finished the last block
        self._ended = False

    def run(self) -> None:
        """Work until the end. An error ends the blocks on the device, whose state is unknown, and no later one."""
        while not self._ended:
            try:
                self._take()
                if self._blocks and (found := self._batches.step()) is not None:
                    self._pass_on(found[1])
            except BaseException as error:
                for place in self._blocks:
                    place.fed.end(error)
                self._blocks.clear()
                self._batches = MicroBatches(self._sizer, self._start_batch, self._in_flight)

    def _take(self) -> None:
        """Take the blocks that have arrived. Wait for one if the device has nothing to do."""
        while not self._arrived.empty() or not self._blocks:
            fed = self._arrived.get()
            if fed is None:
                self._ended = True
                return
            self._blocks.append(_Place(fed, self._batches.rows))
            self._batches.add(len(fed.pixels))

    def _start_batch(self, first: int, end: int) -> Callable[[], Result]:
        place = next(place for place in reversed(self._blocks) if place.first <= first)
        if place.begun_s is None:
            place.begun_s = time.monotonic()
        return self._start(place.fed.pixels[first - place.first : end - place.first])

    def _pass_on(self, result: Result | None) -> None:
        """Pass a result on to its block, which is the first one, because results come in order."""
        place = self._blocks[0]
        place.fed.put(result)
        if self._batches.done < place.first + len(place.fed.pixels):
            return
        self._blocks.popleft()
        now_s = time.monotonic()
        begun_s = now_s if place.begun_s is None else place.begun_s
        free_s = begun_s if self._free_s is None else self._free_s
        place.fed.worked_s, place.fed.waited_s = now_s - max(begun_s, free_s), max(0.0, begun_s - free_s)
        self._free_s = now_s
        place.fed.end()


class _Place(Generic[Result]):
    """A block, its first row among the rows of all blocks, and when the device began to work on it."""

    def __init__(self, fed: Fed[Result], first: int) -> None:
        self.fed, self.first = fed, first
        self.begun_s: float | None = None
