"""The rate of a pipeline after its start-up."""

from collections.abc import Sequence
from itertools import accumulate


def of(seen: Sequence[tuple[float, int]]) -> float:
    """Return the images/s of the second half of the output, given as (seconds, images) in order.

    The first half contains what had piled up before the last stage was ready. It comes out faster than it was
    made.
    """
    half = sum(images for _, images in seen) / 2
    counted = list(accumulate(images for _, images in seen))
    middle = next(place for place, images in enumerate(counted) if images >= half)
    return (counted[-1] - counted[middle]) / (seen[-1][0] - seen[middle][0])
