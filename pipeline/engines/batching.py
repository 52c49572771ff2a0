"""How rows are cut for a device: the size of blocks, and micro-batches of the size that a `BatchSizer` proposes.

This module knows no device, no torch and no Ray.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.engines.batch_sizer import BatchSizer
from pipeline.errors import OutOfMemory

FIRST_BLOCK_ROWS = {False: 32, True: 512}
"""Rows of a block while the rate of a predictor is unknown, without and with an accelerator."""
BLOCK_ROWS = (8, 512)
"""Fewest and most rows of a block. Each block costs Ray some 40 ms, and is lost if its actor dies."""
BLOCK_S = 5.0
"""Seconds that one block should take a predictor."""
BLOCKS_EACH = 4
"""Blocks that each actor of a small run should get: larger blocks would leave some without work."""

Result = TypeVar("Result")


def block_rows(images_per_s: float | None, *, accelerator: bool, rows_each: int) -> int:
    """Return the rows of a block for one predictor's measured rate, which is None if unknown.

    `rows_each` are the rows of the run for each actor. A block has a power of two of rows, like micro-batches: a
    remainder would keep only one of several streams busy, or be padded.
    """
    least, most = BLOCK_ROWS
    rows = FIRST_BLOCK_ROWS[accelerator]
    if images_per_s is not None:
        rows = max(least, min(most, int(images_per_s * BLOCK_S)))
    rows = min(rows, max(FIRST_BLOCK_ROWS[False], rows_each // BLOCKS_EACH))
    return 1 << (rows.bit_length() - 1)


@dataclass(frozen=True)
class _Started(Generic[Result]):
    """A micro-batch on the device; `alone` if no other one was there when it started."""

    first: int
    end: int
    alone: bool
    started_s: float
    wait: Callable[[], Result]


class MicroBatches(Generic[Result]):
    """Computes the rows of blocks in order, in micro-batches of the sizes that the sizer proposes.

    Rows are numbered through all blocks, from 0. `start(first, end)` starts a micro-batch, which is of one block,
    and returns a function that waits for its result. Up to `in_flight` are on the device at once, also of two
    blocks. If either call raises OutOfMemory, the same rows are tried again in smaller micro-batches; for a row
    that does not fit by itself the result is None.
    """

    def __init__(
        self, sizer: BatchSizer, start: Callable[[int, int], Callable[[], Result]], in_flight: int = 1
    ) -> None:
        self._sizer, self._start, self._in_flight = sizer, start, in_flight
        self._ends: deque[int] = deque()  # of the blocks that are not done
        self._started: deque[_Started[Result]] = deque()
        self.rows = 0
        self.done = 0  # rows whose results are known
        self._free_s = 0.0  # when the device finished the last micro-batch
        self._crowded = False  # the last failure may be due to other micro-batches on the device

    def add(self, rows: int) -> None:
        """Add a block of at least one row behind the others."""
        self.rows += rows
        self._ends.append(self.rows)

    def step(self) -> tuple[int, Result | None] | None:
        """Start a micro-batch if there is room for one, otherwise wait for the first one.

        Return its first row and its result once it has one. There must be rows that are not done.
        """
        return self._start_next() if self._has_room() else self._finish_first()

    def of_block(self, rows: int) -> Iterator[Result | None]:
        """Give the results of a block, in order."""
        self.add(rows)
        while self.done < self.rows:
            if (found := self.step()) is not None:
                yield found[1]

    @property
    def _first(self) -> int:
        """The first row that has not been started."""
        return self._started[-1].end if self._started else self.done

    def _has_room(self) -> bool:
        room = len(self._started) < self._in_flight and not self._crowded
        return self._first < self.rows and (room or not self._started)

    def _start_next(self) -> tuple[int, Result | None] | None:
        first, alone = self._first, not self._started
        block_end = next(end for end in self._ends if end > first)
        end = min(block_end, first + self._sizer.propose())
        started_s = time.perf_counter()
        try:
            wait = self._start(first, end)
        except OutOfMemory:
            return self._shrink(first, end, alone)
        self._started.append(_Started(first, end, alone, started_s, wait))
        return None

    def _finish_first(self) -> tuple[int, Result | None] | None:
        batch = self._started[0]
        try:
            result = batch.wait()
        except OutOfMemory:
            return self._shrink(batch.first, batch.end, batch.alone)
        self._started.popleft()
        now_s = time.perf_counter()
        self._sizer.done(batch.end - batch.first, now_s - max(batch.started_s, self._free_s))
        self._free_s, self._crowded = now_s, False
        self._finish(batch.end)
        return batch.first, result

    def _shrink(self, first: int, end: int, alone: bool) -> tuple[int, Result | None] | None:
        """Prepare to try rows again that did not fit. Give up a row that was alone on the device."""
        self._sizer.out_of_memory(end - first)
        # What was started before must finish before anything is tried again, and one image is tried by itself.
        self._crowded = first > self.done or not alone
        if first > self.done:
            return None
        self._started.clear()  # the micro-batches behind it start again
        if end - first > 1 or not alone:
            return None
        self._finish(end)
        return first, None

    def _finish(self, end: int) -> None:
        self.done = end
        while self._ends and self._ends[0] <= end:
            self._ends.popleft()
