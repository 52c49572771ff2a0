"""How many requests a store gets at once, and when: fewer while it throttles, more as it answers again.

A `Pace` belongs to a store, a `Turn` to a request. This module knows neither URIs nor what is requested.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.errors import RowError
from pipeline.storage.error_codes import RETRYABLE, classify, throttle

Answer = TypeVar("Answer")
FIRST_WAIT_S = 0.5
"""The first pause if a store names none. It doubles each time that the same request is throttled."""
LONGEST_WAIT_S = 10.0
IN_A_ROW = 3
"""After this many throttled requests without another answer between them, all requests of the store wait."""
LOOK_S = 0.5
"""How often a waiting request checks whether its answer is still wanted."""


class GivenUpError(Exception):
    """The answer is not wanted any more."""


class ThrottledError(Exception):
    """A store has throttled every request until its patience was over."""


class Pace:
    """One store's requests in one process. Safe for threads.

    Additive increase, multiplicative decrease: a throttled request halves the number of requests at once, and an
    answered one adds its share of one more. Requests go in the order of their places: the oldest goes first,
    because the others wait for it.
    """

    def __init__(self, most: int, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Allow `most` requests at once. `patience_s`: seconds for which the store may do nothing but throttle."""
        self._most, self._patience_s, self._clock = most, patience_s, clock
        self._limit = float(most)
        self._busy, self._in_a_row = 0, 0
        self._waiting: set[int] = set()
        self._lowered_s = self._opens_s = -float("inf")
        self._only_throttles_since: float | None = None
        self._changed = threading.Condition()

    @property
    def at_once(self) -> int:
        """How many requests may be in flight."""
        return int(self._limit)

    @contextmanager
    def turn(self, place: int, given_up: threading.Event) -> Iterator[float]:
        """Wait for this request's turn; yield when it began. Raises: GivenUpError once `given_up` is set."""
        with self._changed:
            self._waiting.add(place)
            try:
                while (pause_s := self._pause(place)) > 0:
                    if given_up.is_set():
                        raise GivenUpError
                    self._changed.wait(pause_s)
            finally:
                self._waiting.remove(place)
                self._changed.notify_all()
            self._busy += 1
        try:
            yield self._clock()
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def answered(self) -> None:
        """Note that the store has served a request, if only with "no such object"."""
        with self._changed:
            self._in_a_row, self._only_throttles_since = 0, None
            self._limit = min(self._most, self._limit + 1 / self._limit)

    def throttled(self, began_s: float, asked_s: float | None, times: int) -> float:
        """Note that the store has throttled a request that began at `began_s`, for the `times`-th time.

        `asked_s` is the pause that the store asked for. Return the seconds that the request has to wait.
        Raises: ThrottledError if the patience is over.
        """
        with self._changed:
            now = self._clock()
            self._in_a_row += 1
            if began_s > self._lowered_s:  # requests in flight together count as one
                self._limit, self._lowered_s = max(1.0, self._limit / 2), now
            if self._only_throttles_since is None:
                self._only_throttles_since = now
            left_s = self._only_throttles_since + self._patience_s - now
            if left_s <= 0:
                raise ThrottledError(
                    f"the store throttled every request for fetch.patience_s = {self._patience_s:g} s"
                )
            wait_s = min(_wait(asked_s, times), left_s)
            if self._in_a_row >= IN_A_ROW:
                self._opens_s = max(self._opens_s, now + wait_s)
            return wait_s

    def _pause(self, place: int) -> float:
        """Return the seconds until the next check; 0 or less if it is this request's turn."""
        if self._busy >= int(self._limit) or place != min(self._waiting):
            return LOOK_S
        return min(self._opens_s - self._clock(), LOOK_S)


class Turn:
    """One request in the queue of its store."""

    def __init__(self, pace: Pace, place: int, given_up: threading.Event) -> None:
        self._pace, self._place, self._given_up = pace, place, given_up
        self._throttled = 0
        self.asked = 0
        """How often the store was asked."""

    def served(self, read: Callable[[], Answer]) -> Answer:
        """Call `read` until the store does not throttle it, and return its result.

        Raises: ThrottledError, GivenUpError, and whatever else `read` raises.
        """
        while True:
            said = self._once(read)
            if isinstance(said, _Served):
                return said.answer
            if self._given_up.wait(said):
                raise GivenUpError

    def _once(self, read: Callable[[], Answer]) -> "_Served[Answer] | float":
        """Call `read` once. Return its result, or the seconds to wait before the next call."""
        with self._pace.turn(self._place, self._given_up) as began_s:
            self.asked += 1
            try:
                found = read()
            except Exception as error:
                said = throttle(error)
                if said is not None:
                    self._throttled += 1
                    return self._pace.throttled(began_s, said.wait_s, self._throttled)
                if isinstance(error, RowError) or classify(error) not in RETRYABLE:
                    self._pace.answered()
                raise
            self._pace.answered()
            return _Served(found)


@dataclass(frozen=True)
class _Served(Generic[Answer]):
    answer: Answer


def _wait(asked_s: float | None, times: int) -> float:
    """Return the pause that the store asks for, or a growing one. Jitter spreads the requests of many workers."""
    if asked_s:
        return asked_s * random.uniform(1.0, 1.1)  # noqa: S311
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (times - 1))
    return random.uniform(longest / 2, longest)  # noqa: S311
