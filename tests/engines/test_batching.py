"""Rows cut into blocks and micro-batches: none is lost, whatever does not fit on the device."""

from collections.abc import Callable

import pytest
from hypothesis import example, given, strategies as st

from pipeline.engines.batch_sizer import BatchSizer
from pipeline.engines.batching import MicroBatches, block_rows
from pipeline.errors import OutOfMemory


class Device:
    """Holds `memory` images over all open batches; the `poor` ones fit nowhere."""

    def __init__(self, memory: int, late: bool, poor: frozenset[int]) -> None:
        self.memory, self.late, self.poor = memory, late, poor
        self.open: list[tuple[int, int]] = []
        self.most = 0

    def start(self, first: int, end: int) -> Callable[[], list[int]]:
        fits = sum(e - f for f, e in self.open) + end - first <= self.memory and self.poor.isdisjoint(
            range(first, end)
        )
        if not fits and not self.late:
            raise OutOfMemory
        self.open.append((first, end))
        self.most = max(self.most, len(self.open))

        def wait() -> list[int]:
            if not fits:
                self.open.clear()  # with all that was begun behind it
                raise OutOfMemory
            assert self.open[0] == (first, end), "results are asked for in order"
            self.open.pop(0)
            return list(range(first, end))

        return wait


@given(
    st.integers(0, 200),
    st.integers(1, 300),
    st.booleans(),
    st.frozensets(st.integers(0, 199), max_size=4),
    st.integers(1, 3),
    st.integers(1, 64),
)
@example(2, 1, True, frozenset(), 2, 1)  # the second one fits only by itself
def test_no_row_is_lost_doubled_or_moved_if_batches_do_not_fit(
    rows: int, memory: int, late: bool, poor: frozenset[int], in_flight: int, largest: int
) -> None:
    device, found = Device(memory, late, poor), []
    for result in MicroBatches(rows, BatchSizer(largest), device.start, in_flight):
        found += [None] if result is None else result
    assert found == [None if row in poor else row for row in range(rows)]
    assert device.most <= in_flight


def test_the_next_batch_starts_before_the_first_result_is_awaited() -> None:
    device = Device(10**6, late=False, poor=frozenset())
    list(MicroBatches(200, BatchSizer(64), device.start, in_flight=2))
    assert device.most == 2


@pytest.mark.parametrize(
    ("images_per_s", "rows"),
    [(0.1, 8), (3.1, 8), (3.5, 16), (6.4, 32), (25, 64), (26, 128), (102, 256), (9999, 512)],
)
def test_a_block_is_at_most_five_seconds_of_work_in_a_power_of_two(images_per_s: float, rows: int) -> None:
    assert block_rows(images_per_s, accelerator=False) == rows


def test_the_first_block_is_smaller_on_a_cpu() -> None:
    assert (block_rows(None, accelerator=False), block_rows(None, accelerator=True)) == (32, 256)
