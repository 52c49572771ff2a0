"""Pairs to groups: union-find, the nearest pairs first, with a bound on the size of a group."""

from array import array
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

LARGEST = 1_000
"""Different files in one group, at most. Without a bound, chains of near images could join half a lake."""


class Groups:
    """Numbers from 0 up to `count`, each first in a group of its own. It takes 16 bytes a number."""

    def __init__(self, count: int, largest: int = LARGEST) -> None:
        self._parents, self._sizes, self._largest = array("q", range(count)), array("q", [1]) * count, largest
        self.refused = 0

    def join(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Join the groups of each pair, unless the group would be too large: that pair is counted as `refused`."""
        for first, second in pairs:
            one, other = self._root(first), self._root(second)
            if one == other:
                continue
            size = self._sizes[one] + self._sizes[other]
            if size > self._largest:
                self.refused += 1
                continue
            if self._sizes[one] < self._sizes[other]:
                one, other = other, one
            self._parents[other], self._sizes[one] = one, size

    def roots(self) -> NDArray[np.int64]:
        """Return the number that stands for the group of each number: int64 (count,)."""
        return np.fromiter(map(self._root, range(len(self._parents))), np.int64, len(self._parents))

    def _root(self, number: int) -> int:
        parents = self._parents
        while parents[number] != number:
            parents[number] = parents[parents[number]]  # shorter for the next one
            number = parents[number]
        return number
