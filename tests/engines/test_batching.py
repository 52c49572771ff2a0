"""Rows cut into blocks and micro-batches: none is lost, whatever does not fit on the device."""

from collections.abc import Callable

import pytest
from hypothesis import example, given, strategies as st

from pipeline.engines.batch_sizer import BatchSizer
from pipeline.engines.batching import BLOCK_ROWS, MicroBatches, block_rows
from pipeline.errors import OutOfMemory


class Device:
    """Holds `memory` images over all open batches; the `poor` ones fit nowhere."""

    def __init__(self, memory: int, late: bool, poor: frozenset[int]) -> None:
        self.memory, self.late, self.poor = memory, late, poor
        self.open: list[tuple[int, int]] = []
        self.started: list[tuple[int, int]] = []
        self.most = 0

    def start(self, first: int, end: int) -> Callable[[], list[int]]:
        fits = sum(e - f for f, e in self.open) + end - first <= self.memory and self.poor.isdisjoint(
            range(first, end)
        )
        if not fits and not self.late:
            raise OutOfMemory
        self.open.append((first, end))
        self.started.append((first, end))
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
    st.lists(st.integers(1, 100), max_size=4),
    st.integers(1, 300),
    st.booleans(),
    st.frozensets(st.integers(0, 199), max_size=4),
    st.integers(1, 3),
    st.integers(1, 64),
    st.integers(1, 3),
)
@example([2], 1, True, frozenset(), 2, 1, 1)  # the second one fits only by itself
@example([1, 1], 1, True, frozenset(), 2, 1, 2)  # and if it is of the next block
def test_no_row_is_lost_doubled_or_moved_if_batches_do_not_fit(
    blocks: list[int], memory: int, late: bool, poor: frozenset[int], in_flight: int, largest: int, ahead: int
) -> None:
    device, waiting, found = Device(memory, late, poor), list(blocks), list[int | None]()
    batches = MicroBatches(BatchSizer(largest), device.start, in_flight)
    firsts = []
    while waiting or batches.done < batches.rows:
        while waiting and sum(blocks[: len(blocks) - len(waiting)]) - batches.done < ahead * 100:
            batches.add(waiting.pop(0))
        if (step := batches.step()) is not None:
            firsts.append((step[0], len(found)))
            found += [None] if step[1] is None else step[1]
    assert found == [None if row in poor else row for row in range(sum(blocks))]
    assert all(first == place for first, place in firsts)
    assert device.most <= in_flight
    ends = {sum(blocks[: number + 1]) for number in range(len(blocks))}
    assert all(not any(first < end < last for end in ends) for first, last in device.started)


def test_the_next_batch_starts_before_the_first_result_is_awaited() -> None:
    device = Device(10**6, late=False, poor=frozenset())
    list(MicroBatches(BatchSizer(64), device.start, in_flight=2).of_block(200))
    assert device.most == 2


def test_the_next_block_starts_before_the_last_result_of_a_block_is_awaited() -> None:
    device = Device(10**6, late=False, poor=frozenset())
    batches = MicroBatches(BatchSizer(64), device.start, in_flight=2)
    batches.add(1)
    batches.add(1)
    assert (batches.step(), batches.step()) == (None, None)
    assert device.open == [(0, 1), (1, 2)]
    assert (batches.step(), batches.step()) == ((0, [0]), (1, [1]))


@pytest.mark.parametrize(
    ("images_per_s", "rows"),
    [(0.1, 8), (3.1, 8), (3.5, 16), (6.4, 32), (25, 64), (26, 128), (102, 256), (9999, 512)],
)
def test_a_block_is_at_most_five_seconds_of_work_in_a_power_of_two(images_per_s: float, rows: int) -> None:
    assert block_rows(images_per_s, accelerator=False, rows_each=10**6) == rows


def test_the_first_blocks_are_small_on_a_cpu_and_as_large_as_they_get_on_an_accelerator() -> None:
    found = [block_rows(None, accelerator=accelerator, rows_each=10**6) for accelerator in (False, True)]
    assert found == [32, BLOCK_ROWS[1]]


@pytest.mark.parametrize(("rows_each", "rows"), [(0, 32), (128, 32), (612, 128), (2047, 256), (2048, 512)])
def test_each_actor_of_a_small_run_gets_several_blocks(rows_each: int, rows: int) -> None:
    assert block_rows(None, accelerator=True, rows_each=rows_each) == rows
    assert block_rows(10_000, accelerator=True, rows_each=rows_each) == rows
