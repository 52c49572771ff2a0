"""The micro-batch size, against simulated devices: a throughput curve, a memory limit, noise, and drift."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, strategies as st

from pipeline.engines.batch_sizer import COOLDOWN, BatchSizer, SettledSize

Curve = Callable[[int], float]
"""Images a second at a batch size."""
LARGEST = 512
BATCHES = 20
"""Micro-batches after which the size must be good."""


def knee(size: float) -> Curve:
    """A device that is busy from `size` images on: linear below, flat above."""
    return lambda batch: 10.0 * min(batch, size)


def launch_bound(cost: float) -> Curve:
    """A fixed cost a batch and a cost an image: rises for ever, ever more slowly."""
    return lambda batch: batch / (cost + batch * 0.01)


def cached(size: float, loss: float) -> Curve:
    """A CPU whose cache overflows over `size` images: every doubling beyond costs a share of the rate."""
    return lambda batch: min(1.0, 0.7 + 0.3 * batch / size) * (1 - loss) ** max(0.0, np.log2(batch / size))


CURVES = st.one_of(
    st.floats(1, 600).map(knee),
    st.floats(0.0001, 10).map(launch_bound),
    st.builds(cached, st.floats(1, 600), st.floats(0.0, 0.3)),
)


def drive(
    sizer: BatchSizer, rate: Curve, *, memory: int = 10**9, batches: int = 100, noise: float = 0.0, seed: int = 0
) -> list[int]:
    """Run a device that fails over `memory` images; returns the sizes that were proposed."""
    random = np.random.default_rng(seed)
    proposed = []
    for _ in range(batches):
        size = sizer.propose()
        proposed.append(size)
        if size > memory:
            sizer.out_of_memory(size)
        else:
            sizer.done(size, size / rate(size) * (1 + noise * random.uniform(-1, 1)))
    return proposed


def best(rate: Curve, largest: int = LARGEST) -> float:
    return max(rate(2**power) for power in range(largest.bit_length()))


@given(CURVES, st.integers(0, 9).map(lambda power: 2**power), st.integers(1, 600))
def test_after_twenty_batches_it_is_within_five_percent_of_the_best_that_fits(
    rate: Curve, largest: int, memory: int
) -> None:
    sizer = BatchSizer(largest)
    drive(sizer, rate, memory=memory, batches=BATCHES)
    assert rate(sizer.propose()) >= 0.95 * best(rate, min(largest, memory))


@given(CURVES, st.integers(0, 1000))
def test_noise_of_one_percent_does_not_mislead_it(rate: Curve, seed: int) -> None:
    sizer = BatchSizer(LARGEST)
    drive(sizer, rate, batches=BATCHES, noise=0.01, seed=seed)
    assert rate(sizer.propose()) >= 0.95 * best(rate)


@given(CURVES, st.lists(st.tuples(st.integers(0, 600), st.integers(1, 60)), max_size=5), st.integers(1, 600))
def test_a_size_that_did_not_fit_is_never_proposed_again(
    rate: Curve, limits: list[tuple[int, int]], largest: int
) -> None:
    sizer, failed = BatchSizer(largest), 10**9
    for memory, batches in limits:
        for size in drive(sizer, rate, memory=memory, batches=batches):
            assert 1 <= size <= largest
            assert size < failed or size == 1
            failed = min(failed, size) if size > memory else failed


@pytest.mark.parametrize("memory", [1, 2, 5, 7, 8, 9, 31, 100, 511])
def test_on_a_rising_curve_it_settles_just_below_what_does_not_fit(memory: int) -> None:
    sizer = BatchSizer(LARGEST)
    settled = drive(sizer, knee(512), memory=memory)[-1]
    assert settled <= memory < 2 * settled


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 64, 512])
def test_it_settles_at_the_knee_of_the_curve(size: int) -> None:
    sizer = BatchSizer(LARGEST)
    drive(sizer, knee(size), batches=BATCHES)
    assert sizer.propose() == max(size, 8)  # on a flat curve the first size stays


def test_it_goes_down_if_smaller_sizes_are_faster() -> None:
    sizer = BatchSizer(LARGEST)
    drive(sizer, cached(2, 0.1), batches=BATCHES)
    assert sizer.propose() == 2


def test_it_follows_a_device_that_changes() -> None:
    sizer = BatchSizer(LARGEST)
    drive(sizer, knee(16), batches=BATCHES)
    assert sizer.propose() == 16
    drive(sizer, knee(128), batches=20 * COOLDOWN)
    assert sizer.propose() == 128


def test_trying_other_sizes_costs_a_settled_device_less_than_one_percent() -> None:
    sizer = BatchSizer(LARGEST)
    drive(sizer, knee(64), batches=BATCHES)
    sizes = drive(sizer, knee(64), batches=100 * COOLDOWN, noise=0.02)
    assert sum(size != 64 for size in sizes) < 0.01 * len(sizes)


def test_a_sizer_starts_from_the_settled_size_of_another_one() -> None:
    first = BatchSizer(LARGEST)
    assert first.settled is None
    drive(first, knee(512), memory=100)
    assert first.settled == SettledSize(64, 128)
    second = BatchSizer(LARGEST, first.settled)
    assert set(drive(second, knee(512), batches=COOLDOWN)) == {64}
    assert max(drive(second, knee(512), batches=5 * COOLDOWN)) == 64  # it never gets as far as the ceiling
    assert BatchSizer(16, first.settled).propose() == 16


def test_a_short_batch_that_did_not_fit_counts_too() -> None:
    sizer = BatchSizer(LARGEST, SettledSize(64))
    sizer.out_of_memory(10)
    assert sizer.propose() == 4
    assert max(drive(sizer, knee(512), memory=9)) < 10


def test_out_of_memory_at_one_image_stays_at_one() -> None:
    sizer = BatchSizer(LARGEST)
    assert drive(sizer, knee(512), memory=0)[:6] == [8, 4, 2, 1, 1, 1]
    assert set(drive(sizer, knee(512))) == {1}


def test_the_first_batch_of_a_size_does_not_count() -> None:
    sizer = BatchSizer(16)
    for size, seconds in ((8, 100.0), (8, 8 / 80), (16, 1e-6), (16, 16 / 40)):  # a slow and a lucky first batch
        assert sizer.propose() == size
        sizer.done(size, seconds)
    assert sizer.propose() != 16


def test_the_tails_of_blocks_do_not_count() -> None:
    sizer = BatchSizer(LARGEST)
    for _ in range(50):
        sizer.done(3, 1e-9)
    assert sizer.propose() == 8


def test_a_batch_that_takes_no_time_is_counted() -> None:
    sizer = BatchSizer(16)
    for _ in range(2):
        sizer.done(8, 0.0)
    assert sizer.propose() == 16
