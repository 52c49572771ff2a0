"""The search for the fastest micro-batch size, as a pure state machine. It knows no device, no torch and no Ray.

A `BatchSizer` proposes a size and is told how that micro-batch went. It searches the buckets (the powers of two)
for the one with the most images/s. After an out-of-memory error it halves the size, and never again proposes a
size that did not fit.
"""

from collections import deque
from dataclasses import dataclass
from statistics import median

FIRST = 8
"""Images in the first micro-batch of a model without a known size."""
NOISE = 0.02
"""Rates that differ by less count as equal. Among those the bucket nearest to `FIRST` wins: memory is not free."""
LOSS, MISSES = 0.05, 2
"""A search in one direction ends after `MISSES` buckets in a row that are slower than the fastest by `LOSS`. One
slow bucket is not enough: a curve may rise late."""
PROBE_GAIN = 0.05
"""How much faster a neighbouring bucket must be to replace a settled size; less may be noise."""
COOLDOWN = 64
"""Micro-batches before a settled sizer tries a neighbouring bucket: devices slow down, or are shared. Each try
without gain doubles it, so that in the long run trying costs nothing."""
RECENT = 5
"""Micro-batches whose median is the rate of a settled size."""


@dataclass(frozen=True)
class SettledSize:
    """The result of a search: the best size, and the smallest size that did not fit, if there was one."""

    size: int
    ceiling: int | None = None


class BatchSizer:
    """Finds the fastest bucket up to `max_size`, then stays near it.

    It climbs from `FIRST`, then goes down from there unless that is clearly slower. It runs two micro-batches of
    each bucket; the first one, which may compile or allocate, does not count. `known` is the result of another
    sizer of the same model on the same kind of device: the sizer starts from it, and does not search.
    """

    def __init__(self, max_size: int, known: SettledSize | None = None) -> None:
        self._buckets = [2**power for power in range(max_size.bit_length())]
        self._ceiling = known.ceiling if known else None
        self._size = self._nearest(known.size if known else FIRST)
        self._seen = 0  # micro-batches of this size in a row
        self._rates: dict[int, float] = {}  # images/s by bucket, while it searches
        self._climbing, self._misses = True, 0
        self._home = self._size if known else None  # the bucket that it settled on
        self._recent: deque[float] = deque(maxlen=RECENT)  # images/s there
        self._cooldown = self._wait = COOLDOWN
        self._upwards = False
        self.too_large = 0
        """How many micro-batches did not fit."""

    @property
    def settled(self) -> SettledSize | None:
        """The result of the search, from which another sizer may start; None while it searches."""
        return None if self._home is None else SettledSize(self._home, self._ceiling)

    def propose(self) -> int:
        """Return the size of the next micro-batch, in images."""
        return self._size

    def done(self, images: int, seconds: float) -> None:
        """Note that a micro-batch of `images` took `seconds`. Tails of blocks, which are smaller, do not count."""
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
        """Note that a micro-batch of `images` did not fit. From now on only smaller ones are proposed."""
        self.too_large += 1
        self._ceiling = min(images, self._ceiling or images)
        self._rates = {size: rate for size, rate in self._rates.items() if size < self._ceiling}
        if self._home is not None:
            self._settle(self._nearest(images // 2))
        elif self._rates:
            self._descend()
        else:
            self._move_to(self._nearest(images // 2))

    def _search(self) -> None:
        """Go on to the next bucket that may be faster."""
        slower = self._rates[self._size] < max(self._rates.values()) * (1 - LOSS)
        self._misses = self._misses + 1 if slower else 0
        larger = self._neighbour(self._size)
        if self._climbing and larger and self._misses < MISSES:
            self._move_to(larger)
        else:
            self._descend()

    def _descend(self) -> None:
        """Go on to the next smaller bucket, or settle if the smallest one so far is slower."""
        self._climbing, least = False, min(self._rates)
        smaller = self._neighbour(least, -1)
        if smaller and self._rates[least] >= max(self._rates.values()) * (1 - LOSS):
            self._move_to(smaller)
        else:
            self._settle_on_best()

    def _settle_on_best(self) -> None:
        best = max(self._rates.values())
        as_fast = [size for size, rate in self._rates.items() if rate >= best * (1 - NOISE)]
        self._settle(min(as_fast, key=lambda size: abs(size - FIRST)))

    def _settle(self, size: int) -> None:
        self._home, self._cooldown, self._wait = size, COOLDOWN, COOLDOWN
        self._recent.clear()
        self._move_to(size)

    def _stay(self) -> None:
        """Try a neighbouring bucket if the cooldown is over."""
        self._wait -= 1
        if self._wait > 0:
            return
        self._upwards = not self._upwards
        self._cooldown *= 2
        self._wait = self._cooldown
        self._move_to(self._neighbour(self._size, 1 if self._upwards else -1) or self._size)

    def _compare(self, rate: float) -> None:
        """Settle on the neighbouring bucket that was tried, or return to the settled one."""
        assert self._home is not None
        if rate > median(self._recent) * (1 + PROBE_GAIN):
            self._upwards = not self._upwards  # so that the next try is in this direction again
            self._settle(self._size)
        else:
            self._move_to(self._home)

    def _move_to(self, size: int) -> None:
        if size != self._size:
            self._size, self._seen = size, 0

    def _neighbour(self, size: int, step: int = 1) -> int | None:
        """Return the next larger or smaller bucket that may fit; None if there is none."""
        beyond = [bucket for bucket in self._allowed() if (bucket - size) * step > 0]
        return min(beyond, key=lambda bucket: abs(bucket - size), default=None)

    def _nearest(self, size: int) -> int:
        """Return the largest bucket up to `size` that may fit; at least one image."""
        return max((bucket for bucket in self._allowed() if bucket <= size), default=1)

    def _allowed(self) -> list[int]:
        return [bucket for bucket in self._buckets if self._ceiling is None or bucket < self._ceiling]
