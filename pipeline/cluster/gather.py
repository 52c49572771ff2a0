"""Gather finished blocks into groups, by rows and by age. It does not know what becomes of a group."""

import queue
import threading
import time
from collections.abc import Callable, Generator

from pipeline.cluster.ray_internals import Block, Blocks

GATHER_SHARE = 0.8
"""Share of the commit interval for which finished blocks are gathered into larger files."""
POLL_S = 0.2
"""Seconds after which a stop is noticed at the latest."""
END_S = 60.0
"""Seconds to wait for the stages to stop, once no more blocks are wanted."""

Groups = Generator[list[Block], None, None]


def gather(
    blocks: Blocks,
    *,
    rows: int,
    age_s: float,
    stopped: Callable[[], bool],
    interrupt: Callable[[], None] = lambda: None,
) -> Groups:
    """Gather blocks into groups of `rows` rows, or of fewer once the first block is `age_s` seconds old.

    The first block is a group of its own, so that something is committed at once. Once `stopped` returns True,
    the last group is what has arrived. While the caller is busy, at most two more blocks are taken. At the end
    `blocks` is closed; `interrupt` ends its wait for a block that does not come. Raises: what `blocks` raises.
    """
    arrived: queue.Queue[Block | BaseException | None] = queue.Queue(maxsize=1)
    ended = threading.Event()
    puller = threading.Thread(target=_pull, args=(blocks, arrived, ended), daemon=True, name="gather")
    puller.start()
    group: list[Block] = []
    deadline = 0.0  # the first block is overdue on arrival
    try:
        while not ended.is_set():
            item = _next(arrived, deadline if group else None, stopped)
            if isinstance(item, tuple):
                if not group and deadline:
                    deadline = time.monotonic() + age_s
                group.append(item)
            if stopped() or item is None or isinstance(item, BaseException):
                ended.set()
            if group and (ended.is_set() or _rows(group) >= rows or time.monotonic() >= deadline):
                yield group
                group, deadline = [], time.monotonic() + age_s
            if isinstance(item, BaseException):
                raise item
    finally:
        ended.set()
        puller.join(2 * POLL_S)
        if puller.is_alive():  # it waits for a block, which may never come
            interrupt()
        puller.join(END_S)


def _rows(group: list[Block]) -> int:
    return sum(rows for _, rows in group)


_TIMED_OUT = object()


def _next(
    arrived: "queue.Queue[Block | BaseException | None]", deadline: float | None, stopped: Callable[[], bool]
) -> object:
    """Return the next item, or `_TIMED_OUT` once the deadline has passed or a stop found nothing there."""
    while not stopped():
        wait = POLL_S if deadline is None else min(POLL_S, deadline - time.monotonic())
        if wait <= 0:
            break
        try:
            return arrived.get(timeout=wait)
        except queue.Empty:
            continue
    try:
        return arrived.get_nowait()
    except queue.Empty:
        return _TIMED_OUT


def _pull(blocks: Blocks, arrived: "queue.Queue[Block | BaseException | None]", ended: threading.Event) -> None:
    """Put blocks into `arrived`, and None or an exception at the end. Wait while the queue is full."""

    def put(item: Block | BaseException | None) -> None:
        while not ended.is_set():
            try:
                return arrived.put(item, timeout=POLL_S)
            except queue.Full:
                continue

    try:
        for block in blocks:
            put(block)
            if ended.is_set():
                return
        put(None)
    except BaseException as error:  # raised where the blocks are consumed
        put(error)
    finally:
        blocks.close()  # ends the stages
