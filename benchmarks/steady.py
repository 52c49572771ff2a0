"""The rate of a pipeline that has found its pace."""

from collections.abc import Sequence
from itertools import accumulate


def rate(seen: Sequence[tuple[float, int]]) -> float:
    """Images/s of the second half of what came out, as (seconds, images) one after the other.

    The first half holds what had piled up before the last stage was ready, and comes faster than it was made.
    """
    half = sum(images for _, images in seen) / 2
    counted = list(accumulate(images for _, images in seen))
    middle = next(place for place, images in enumerate(counted) if images >= half)
    return (counted[-1] - counted[middle]) / (seen[-1][0] - seen[middle][0])
