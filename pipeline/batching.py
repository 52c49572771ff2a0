"""The adaptive micro-batch size, as a pure state machine.

It proposes a size, is told what became of it, and climbs through doubling buckets for as long as
images/s improves; it halves on out-of-memory and never proposes that size again. It knows no device,
no torch and no Ray.
"""

from dataclasses import dataclass, field

MIN_GAIN = 0.05
"""A larger bucket must be this much faster to be kept: below it is noise, and memory is not free."""
SAMPLES = 3
"""Batches of one size before it is judged; the first of them, which may compile or allocate, does not count."""

FIRST_BLOCK_ROWS = {False: 32, True: 256}
"""Rows of a block where nothing is known yet, without and with an accelerator."""
BLOCK_ROWS = (32, 512)
"""Fewest and most rows of a block: each costs Ray some 40 ms, and each is lost with the actor that works on it."""
BLOCK_S = 5.0
"""What one block should cost a predictor, in seconds."""


def block_rows(images_per_s: float | None, *, accelerator: bool) -> int:
    """Rows that travel together, from what one predictor was measured to do; None if it was not."""
    if images_per_s is None:
        return FIRST_BLOCK_ROWS[accelerator]
    least, most = BLOCK_ROWS
    return max(least, min(most, int(images_per_s * BLOCK_S)))


@dataclass
class BatchSizer:
    """Doubles the size, up to `max_size`, until a doubling gains less than `MIN_GAIN`; then it stays."""

    max_size: int
    size: int = 8
    ceiling: int | None = None  # a size that is known not to fit
    _settled: bool = False
    _best_rate: float = 0.0
    _best_size: int = 1
    _rates: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.size = max(1, min(self.size, self.max_size))

    def propose(self) -> int:
        """The size of the next micro-batch, in images."""
        return self.size

    def done(self, images: int, seconds: float) -> None:
        """A micro-batch of `images` took `seconds`. Short ones, the tails of batches, do not count."""
        if images != self.size or self._settled:
            return
        self._rates.append(images / max(seconds, 1e-9))
        if len(self._rates) == SAMPLES:
            self._judge(max(self._rates[1:]))

    def out_of_memory(self, images: int) -> None:
        """A micro-batch of `images` did not fit. Afterwards only smaller ones are proposed."""
        self.ceiling = min(images, self.ceiling or images)
        self._settle(max(1, self.ceiling // 2))

    def _judge(self, rate: float) -> None:
        if rate < self._best_rate * (1 + MIN_GAIN):
            self._settle(self._best_size)
            return
        self._best_rate, self._best_size = rate, self.size
        larger = self.size * 2
        if larger > self.max_size or (self.ceiling is not None and larger >= self.ceiling):
            self._settle(self.size)
            return
        self.size, self._rates = larger, []

    def _settle(self, size: int) -> None:
        self.size, self._settled, self._rates = size, True, []
