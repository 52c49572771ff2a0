"""The adaptive micro-batch size, as a pure state machine.

It proposes a size, is told what became of it, and searches the buckets (the powers of two) for the one that gives
most images/s; it halves on out-of-memory and never again proposes a size that did not fit. It knows no device,
no torch and no Ray.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from pipeline.errors import OutOfMemory

FIRST = 8
"""Images in the first micro-batch of a model that nothing is known of."""
NOISE = 0.02
"""Rates that differ by less are the same: then the bucket next to `FIRST` is best, since memory is not free."""
LOSS, MISSES = 0.05, 2
"""So many buckets in a row that are slower than the fastest by this share end a search in one direction. A curve
may rise late: that a bucket is no faster says nothing of the next."""
PROBE_GAIN = 0.05
"""A settled size is left only for one that is this much faster, or noise would move it."""
COOLDOWN = 64
"""Micro-batches before a settled sizer tries a neighbouring bucket: devices slow down, or are shared. Doubled with
every try that gains nothing, so that trying costs nothing in the long run."""
RECENT = 5
"""Micro-batches whose median rate stands for a settled size."""

FIRST_BLOCK_ROWS = {False: 32, True: 256}
"""Rows of a block where nothing is known yet, without and with an accelerator."""
BLOCK_ROWS = (8, 512)
"""Fewest and most rows of a block: each costs Ray some 40 ms, and each is lost with the actor that works on it."""
BLOCK_S = 5.0
"""What one block should cost a predictor, in seconds."""


def block_rows(images_per_s: float | None, *, accelerator: bool) -> int:
    """Rows that travel together, from what one predictor was measured to do; None if it was not.

    A power of two, as micro-batches are: what is left over would keep one of several streams busy, or be padded.
    """
    if images_per_s is None:
        return FIRST_BLOCK_ROWS[accelerator]
    least, most = BLOCK_ROWS
    rows = max(least, min(most, int(images_per_s * BLOCK_S)))
    return 1 << (rows.bit_length() - 1)


Result = TypeVar("Result")


def in_micro_batches(
    rows: int, sizer: "BatchSizer", start: Callable[[int, int], Callable[[], Result]], in_flight: int = 1
) -> Iterator[Result | None]:
    """Results of rows 0 to `rows` in order, in micro-batches of the sizer's sizes; None for one that never fits.

    `start(first, end)` begins one and returns what waits for it; either may raise OutOfMemory, and the same rows
    are tried again in smaller ones.
    """
    open_: deque[tuple[int, int, bool, float, Callable[[], Result]]] = deque()
    done, last_s, crowded = 0, 0.0, False
    while done < rows:
        try:
            first, alone = open_[-1][1] if open_ else done, not open_
            end = min(rows, first + sizer.propose())
            if first < rows and (alone or (len(open_) < in_flight and not crowded)):
                open_.append((first, end, alone, time.perf_counter(), start(first, end)))
                continue
            first, end, alone, started_s, wait = open_[0]
            result = wait()
        except OutOfMemory:
            sizer.out_of_memory(end - first)
            # Those before it must be out before anything is tried again, and one image is tried by itself.
            crowded = first > done or not alone
            if first == done:
                open_.clear()  # what is open behind it starts again
                if end - first == 1 and alone:
                    yield None
                    done = end
            continue
        open_.popleft()
        now_s = time.perf_counter()
        sizer.done(end - first, now_s - max(started_s, last_s))
        yield result
        done, last_s, crowded = end, now_s, False


@dataclass(frozen=True)
class Learned:
    """What a sizer knows: the size it settled on, and the smallest size that did not fit, if any did not."""

    size: int
    ceiling: int | None = None


class BatchSizer:
    """Finds the fastest bucket up to `max_size`, then stays near it.

    It climbs from `FIRST`, then goes down from there unless that is clearly slower, two micro-batches to a bucket:
    the first one, which may compile or allocate, does not count. `learned` is what another sizer of the same model
    on the same kind of device knew: then it starts there.
    """

    def __init__(self, max_size: int, learned: Learned | None = None) -> None:
        self._buckets = [2**power for power in range(max_size.bit_length())]
        self._ceiling = learned.ceiling if learned else None
        self._size = self._nearest(learned.size if learned else FIRST)
        self._seen = 0  # micro-batches of this size in a row
        self._rates: dict[int, float] = {}  # images/s by bucket, while it searches
        self._climbing, self._misses = True, 0
        self._home = self._size if learned else None  # the bucket that it settled on
        self._recent: deque[float] = deque(maxlen=RECENT)  # images/s there
        self._cooldown = self._wait = COOLDOWN
        self._upwards = False
        self.too_large = 0
        """Micro-batches that did not fit."""

    @property
    def learned(self) -> Learned | None:
        """What the next sizer may start with; None while it searches."""
        return None if self._home is None else Learned(self._home, self._ceiling)

    def propose(self) -> int:
        """The size of the next micro-batch, in images."""
        return self._size

    def done(self, images: int, seconds: float) -> None:
        """A micro-batch of `images` took `seconds`. Short ones, the tails of blocks, do not count."""
        if images != self._size:
            return
        self._seen += 1
        if self._seen == 1:
            return
        rate = images / max(seconds, 1e-9)
        if self._home is None:
            self._rates[self._size] = rate
            self._search()
        elif self._size == self._home:
            self._recent.append(rate)
            self._stay()
        else:
            self._compare(rate)

    def out_of_memory(self, images: int) -> None:
        """A micro-batch of `images` did not fit. Afterwards only smaller ones are proposed."""
        self.too_large += 1
        self._ceiling = min(images, self._ceiling or images)
        self._rates = {size: rate for size, rate in self._rates.items() if size < self._ceiling}
        if self._home is not None:
            self._settle(self._nearest(images // 2))
        elif self._rates:
            self._descend()
        else:
            self._go(self._nearest(images // 2))

    def _search(self) -> None:
        """On to the next bucket that may be faster."""
        slower = self._rates[self._size] < max(self._rates.values()) * (1 - LOSS)
        self._misses = self._misses + 1 if slower else 0
        larger = self._beside(self._size)
        if self._climbing and larger and self._misses < MISSES:
            self._go(larger)
        else:
            self._descend()

    def _descend(self) -> None:
        """On to the next smaller bucket, unless the smallest so far is slower; then settle."""
        self._climbing, least = False, min(self._rates)
        smaller = self._beside(least, -1)
        if smaller and self._rates[least] >= max(self._rates.values()) * (1 - LOSS):
            self._go(smaller)
        else:
            self._settle_on_best()

    def _settle_on_best(self) -> None:
        best = max(self._rates.values())
        as_fast = [size for size, rate in self._rates.items() if rate >= best * (1 - NOISE)]
        self._settle(min(as_fast, key=lambda size: abs(size - FIRST)))

    def _settle(self, size: int) -> None:
        self._home, self._cooldown, self._wait = size, COOLDOWN, COOLDOWN
        self._recent.clear()
        self._go(size)

    def _stay(self) -> None:
        """Try a neighbour when it is time."""
        self._wait -= 1
        if self._wait > 0:
            return
        self._upwards = not self._upwards
        self._cooldown *= 2
        self._wait = self._cooldown
        self._go(self._beside(self._size, 1 if self._upwards else -1) or self._size)

    def _compare(self, rate: float) -> None:
        """Move to the neighbour that was tried, or go back."""
        assert self._home is not None
        if rate > median(self._recent) * (1 + PROBE_GAIN):
            self._upwards = not self._upwards  # the next try goes on in this direction
            self._settle(self._size)
        else:
            self._go(self._home)

    def _go(self, size: int) -> None:
        if size != self._size:
            self._size, self._seen = size, 0

    def _beside(self, size: int, step: int = 1) -> int | None:
        """The next larger or smaller bucket that may fit."""
        beyond = [bucket for bucket in self._allowed() if (bucket - size) * step > 0]
        return min(beyond, key=lambda bucket: abs(bucket - size), default=None)

    def _nearest(self, size: int) -> int:
        """The largest bucket up to `size` that may fit; one image at least."""
        return max((bucket for bucket in self._allowed() if bucket <= size), default=1)

    def _allowed(self) -> list[int]:
        return [bucket for bucket in self._buckets if self._ceiling is None or bucket < self._ceiling]
