"""The micro-batch size, against simulated devices: a throughput curve and a memory limit."""

from collections.abc import Callable

import pytest

from pipeline.batching import SAMPLES, BatchSizer

Curve = Callable[[int], float]
"""Images a second at a batch size."""


def knee(size: int) -> Curve:
    """A device that is busy from `size` images on: linear below, flat above."""
    return lambda batch: 10.0 * min(batch, size)


def launch_bound(cost: float) -> Curve:
    """A fixed cost a batch and a cost an image: rises for ever, ever more slowly."""
    return lambda batch: batch / (cost + batch * 0.01)


def drive(sizer: BatchSizer, rate: Curve, *, memory: int = 10**9, batches: int = 100) -> list[int]:
    """Run a device that fails over `memory` images; returns the sizes that were proposed."""
    proposed = []
    for _ in range(batches):
        size = sizer.propose()
        proposed.append(size)
        if size > memory:
            sizer.out_of_memory(size)
        else:
            sizer.done(size, size / rate(size))
    return proposed


def best(rate: Curve, largest: int) -> float:
    return max(rate(2**i) for i in range(10) if 2**i <= largest)


@pytest.mark.parametrize("size", [8, 16, 64, 512])
def test_it_settles_at_the_knee_of_the_curve(size: int) -> None:
    sizer = BatchSizer(max_size=512)
    drive(sizer, knee(size))
    assert sizer.propose() == size


@pytest.mark.parametrize("rate", [knee(8), knee(100), knee(512), launch_bound(0.001), launch_bound(10.0)])
def test_it_settles_within_five_percent_of_the_best_size(rate: Curve) -> None:
    sizer = BatchSizer(max_size=512)
    drive(sizer, rate)
    assert rate(sizer.propose()) >= 0.95 * best(rate, 512)


@pytest.mark.parametrize("cost", [0.05, 0.1, 0.2, 0.5, 1.0, 2.0])
def test_on_a_curve_without_a_knee_it_gives_away_less_than_two_steps(cost: float) -> None:
    # It stops where doubling gains under 5 %; what all further doublings would gain together is under 10.5 %.
    sizer = BatchSizer(max_size=512)
    drive(sizer, launch_bound(cost))
    assert launch_bound(cost)(sizer.propose()) >= best(launch_bound(cost), 512) / 1.106


def test_a_flat_curve_keeps_the_first_size() -> None:
    sizer = BatchSizer(max_size=512)
    assert max(drive(sizer, lambda batch: 100.0)) == 16
    assert sizer.propose() == 8


def test_a_device_that_gets_slower_with_size_keeps_the_better_one() -> None:
    sizer = BatchSizer(max_size=512)
    drive(sizer, {8: 10.0, 16: 20.0, 32: 15.0}.__getitem__)
    assert sizer.propose() == 16


@pytest.mark.parametrize("memory", [1, 2, 5, 7, 8, 9, 31, 100, 511])
def test_a_size_that_did_not_fit_is_never_proposed_again(memory: int) -> None:
    sizer = BatchSizer(max_size=512)
    proposed = drive(sizer, knee(512), memory=memory)
    for at, size in enumerate(proposed):
        if size > memory:
            assert max(proposed[at + 1 :]) < size
    assert proposed[-1] <= memory < 2 * proposed[-1]


def test_the_known_limit_holds_while_memory_shrinks_under_it() -> None:
    sizer = BatchSizer(max_size=512)
    drive(sizer, knee(512), memory=200)
    assert sizer.propose() == 128
    assert drive(sizer, knee(512), memory=50, batches=10)[-1] == 32
    assert max(drive(sizer, knee(512), batches=50)) == 32


def test_a_limit_that_is_known_from_the_start_is_never_reached() -> None:
    assert max(drive(BatchSizer(max_size=512, ceiling=64), knee(512))) == 32


def test_a_short_batch_that_did_not_fit_counts_too() -> None:
    sizer = BatchSizer(max_size=512, size=64)
    sizer.out_of_memory(10)
    assert sizer.propose() == 5
    assert max(drive(sizer, knee(512), memory=9)) < 10


def test_out_of_memory_at_one_image_stays_at_one() -> None:
    sizer = BatchSizer(max_size=512)
    assert drive(sizer, knee(512), memory=0)[:6] == [8, 4, 2, 1, 1, 1]
    assert set(drive(sizer, knee(512))) == {1}


@pytest.mark.parametrize(("largest", "settled"), [(1, 1), (4, 4), (8, 8), (12, 8), (100, 64), (512, 512)])
def test_it_never_goes_over_the_configured_maximum(largest: int, settled: int) -> None:
    sizer = BatchSizer(max_size=largest)
    assert max(drive(sizer, knee(10**6))) <= largest
    assert sizer.propose() == settled


def test_the_first_batch_of_a_size_does_not_count() -> None:
    sizer = BatchSizer(max_size=16)
    for seconds in (100.0, *[8 / 80] * (SAMPLES - 1)):
        sizer.done(8, seconds)
    assert sizer.propose() == 16
    for seconds in (1e-6, *[16 / 40] * (SAMPLES - 1)):  # a lucky first batch of a slower size
        sizer.done(16, seconds)
    assert sizer.propose() == 8


def test_the_tails_of_blocks_do_not_count() -> None:
    sizer = BatchSizer(max_size=512)
    for _ in range(50):
        sizer.done(3, 1e-9)
    assert sizer.propose() == 8


def test_once_settled_it_stays() -> None:
    sizer = BatchSizer(max_size=512)
    drive(sizer, knee(32))
    assert set(drive(sizer, knee(512))) == {32}


def test_a_batch_too_quick_to_measure_is_no_division_by_zero() -> None:
    sizer = BatchSizer(max_size=16)
    for _ in range(SAMPLES):
        sizer.done(8, 0.0)
    assert sizer.propose() == 16
