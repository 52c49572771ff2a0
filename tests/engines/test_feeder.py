"""Blocks of several threads go through a device one after the other, without a pause, each with its results."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from pipeline.engines.batch_sizer import BatchSizer
from pipeline.engines.feeder import Feeder
from pipeline.errors import EngineError, OutOfMemory

HOPELESS, BROKEN = 254, 255
"""Pixels of images that never fit, and at which the device breaks."""


class Device:
    """Gives the first pixel of each image. It has room for `room` images, and fails late or at once."""

    def __init__(self, room: int = 10**6, late: bool = False) -> None:
        self.room, self.late = room, late
        self.sizes: list[int] = []
        self.threads: set[str] = set()
        self.started, self.go_on = threading.Semaphore(0), threading.Event()
        self.go_on.set()

    def start(self, pixels: NDArray[np.uint8]) -> Callable[[], list[int]]:
        values = pixels[:, 0, 0, 0].tolist()
        self.threads.add(threading.current_thread().name)
        self.sizes.append(len(values))
        self.started.release()
        if not self.late:
            self._check(values)

        def wait() -> list[int]:
            self.go_on.wait()
            self._check(values)
            return [int(value) for value in values]

        return wait

    def _check(self, values: list[int]) -> None:
        if BROKEN in values:
            raise EngineError("The device is broken.")
        if len(values) > self.room or HOPELESS in values:
            raise OutOfMemory


def pixels(values: list[int]) -> NDArray[np.uint8]:
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1).repeat(3, axis=3)


def results(feeder: Feeder[list[int]], values: list[int]) -> list[int | None] | str:
    """What a block of these pixels gives, or the error that it raises."""
    found: list[int | None] = []
    try:
        for result in feeder.feed(pixels(values)):
            found += [None] if result is None else result
    except EngineError as error:
        return str(error)
    return found


@given(
    st.lists(st.lists(st.one_of(st.integers(0, 200), st.just(HOPELESS)), max_size=40), max_size=8),
    st.integers(1, 20),
    st.booleans(),
    st.integers(1, 3),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_each_thread_gets_the_results_of_its_own_rows_in_order(
    blocks: list[list[int]], room: int, late: bool, in_flight: int, callers: int
) -> None:
    device = Device(room, late)
    feeder = Feeder(device.start, BatchSizer(16), in_flight)
    with ThreadPoolExecutor(callers) as pool:
        found = list(pool.map(lambda block: results(feeder, block), blocks))
    assert found == [[None if value == HOPELESS else value for value in block] for block in blocks]
    assert device.threads <= {"feeder"}


@pytest.mark.parametrize("in_flight", [1, 2, 3])
@pytest.mark.parametrize("late", [True, False])
def test_an_error_ends_the_blocks_on_the_device_and_later_blocks_go_on(in_flight: int, late: bool) -> None:
    device = Device(late=late)
    device.go_on.clear()
    feeder = Feeder(device.start, BatchSizer(4), in_flight)
    with ThreadPoolExecutor(2) as pool:
        broken = pool.submit(results, feeder, [1, 2, 3, 4, 5, BROKEN, 7])
        device.started.acquire()
        beside = pool.submit(results, feeder, [8, 9])
        device.go_on.set()
        assert broken.result() == "The device is broken."
        assert beside.result() in ("The device is broken.", [8, 9])  # it may have arrived after the error
    assert results(feeder, [1, 2, 3]) == [1, 2, 3]


def test_the_next_block_is_on_the_device_before_the_results_of_the_last_one_are_there() -> None:
    device = Device()
    device.go_on.clear()
    feeder = Feeder(device.start, BatchSizer(8), in_flight=2)
    first, second = feeder.feed(pixels([1, 2])), feeder.feed(pixels([3]))
    for _ in range(2):
        assert device.started.acquire(timeout=10)
    device.go_on.set()
    assert (list(second), list(first)) == ([[3]], [[1, 2]])
    assert first.waited_s == 0.0 <= second.waited_s < 1.0
    assert min(first.worked_s, second.worked_s) >= 0.0


def test_a_block_without_images_has_no_results_and_needs_no_device() -> None:
    device = Device()
    assert list(Feeder(device.start, BatchSizer(8), 1).feed(pixels([]))) == []
    assert not device.sizes


def test_the_thread_ends_with_its_feeder() -> None:
    before = set(threading.enumerate())
    feeder = Feeder(Device().start, BatchSizer(8), 1)
    (thread,) = set(threading.enumerate()) - before
    assert results(feeder, [1]) == [1]
    del feeder
    thread.join(10)
    assert not thread.is_alive()
