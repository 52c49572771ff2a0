"""Gathering, without Ray: blocks are plain tuples."""

import threading
import time
from typing import Any, cast

import pytest
from ray import ObjectRef

from pipeline.cluster.gather import gather
from pipeline.cluster.ray_internals import Blocks


def blocks(*rows: int, pause_s: float = 0.0) -> Blocks:
    for number, count in enumerate(rows):
        yield cast(ObjectRef, f"block-{number}"), count
        time.sleep(pause_s)


def sizes(source: Blocks, *, rows: int = 10, age_s: float = 60.0, stop: Any = None) -> list[list[int]]:
    groups = gather(source, rows=rows, age_s=age_s, stopped=(stop or threading.Event()).is_set)
    return [[count for _, count in group] for group in groups]


def test_the_first_block_is_a_group_of_its_own() -> None:
    assert sizes(blocks(1, 1, 1, 1)) == [[1], [1, 1, 1]]


def test_a_group_is_given_as_soon_as_it_has_its_rows() -> None:
    assert sizes(blocks(1, 4, 4, 4, 9, 2, 1)) == [[1], [4, 4, 4], [9, 2], [1]]


def test_a_group_is_given_once_it_is_old_although_no_further_block_comes() -> None:
    held = threading.Event()

    def slow() -> Blocks:
        yield from blocks(1, 1)
        held.wait(20)

    groups = gather(slow(), rows=100, age_s=0.3, stopped=lambda: False)
    started = time.monotonic()
    assert len(next(groups)) == 1
    assert len(next(groups)) == 1
    assert time.monotonic() - started < 10
    held.set()
    assert list(groups) == []


def test_nothing_at_all_gives_no_group() -> None:
    assert sizes(blocks()) == []


def test_an_error_comes_after_the_group_before_it() -> None:
    def failing() -> Blocks:
        yield from blocks(1, 2, 3)
        raise OSError("gone")

    groups = gather(failing(), rows=100, age_s=60, stopped=lambda: False)
    assert [len(next(groups)), len(next(groups))] == [1, 2]
    with pytest.raises(OSError, match="gone"):
        next(groups)


def test_a_stop_gives_what_is_there_and_ends() -> None:
    stop = threading.Event()
    groups = gather(blocks(*[1] * 1000, pause_s=0.01), rows=5, age_s=60, stopped=stop.is_set)
    taken = sum(len(next(groups)) for _ in range(3))
    stop.set()
    rest = [len(group) for group in groups]
    assert taken == 11
    assert len(rest) <= 1


@pytest.mark.parametrize("groups", [0, 1, 100])
def test_however_gathering_ends_its_source_is_closed_by_then(groups: int) -> None:
    closed: list[str] = []

    def source() -> Blocks:
        try:
            yield from blocks(1, 2, 3, pause_s=0.1)
        finally:
            closed.append(threading.current_thread().name)

    gathering = gather(source(), rows=1, age_s=60, stopped=lambda: False)
    for _ in range(groups):
        next(gathering, None)
    gathering.close()
    assert closed == ["gather"] * (groups > 0)


def test_while_the_caller_waits_few_blocks_are_taken() -> None:
    given: list[int] = []

    def counted() -> Blocks:
        for block in blocks(*[1] * 100):
            given.append(1)
            yield block

    groups = gather(counted(), rows=1, age_s=60, stopped=lambda: False)
    next(groups)
    time.sleep(0.5)
    assert len(given) <= 4
    assert len(list(groups)) == 99
