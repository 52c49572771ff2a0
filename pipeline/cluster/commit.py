"""Finished blocks -> writes -> commits, by block reference: no row passes through the driver.

`gather` groups blocks by rows and by age; `Committer` keeps a few writes in flight and commits what is
written, on a thread of its own. Together they bound what a killed run loses: a row waits at most
GATHER_SHARE of the commit interval to be written, and a written one the rest of it to be committed.
"""

import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future

from ray import ObjectRef

from pipeline.cluster.started import Block, Blocks
from pipeline.errors import MovedError, StorageError
from pipeline.output.fragment import Fragment, Rest
from pipeline.output.table import Predictions

GATHER_SHARE = 0.8
"""Share of the commit interval for which finished blocks are gathered into larger files."""
WRITES_IN_FLIGHT = 4
"""Fragment writes at once: enough to hide an object store's latency, few enough to bound memory."""
POLL_S = 0.2
"""How soon a stop is noticed, in seconds."""
STOP_S = 45.0
"""How long a run that was asked to stop waits for the files that are being written: a job has a minute in all."""
END_S = 60.0
"""How long to wait for stages to stop, once no more blocks are wanted."""

Newer = dict[str, list[str]]
"""For each file that may hold older rows, the files with the rows that take their place, as paths below the table.
The ids are in these files, and do not pass through the driver."""
MOVES = 5
"""How often in a row maintenance may get ahead of one commit that replaces rows."""


def gather(
    blocks: Blocks,
    *,
    rows: int,
    age_s: float,
    stopped: Callable[[], bool],
    interrupt: Callable[[], None] = lambda: None,
) -> Iterator[list[Block]]:
    """Groups of blocks: as soon as one has `rows` rows or its first block is `age_s` old.

    The very first block is a group of its own, so that something is committed at once. Once `stopped` says so,
    what is there is given as the last group. While the caller does not ask, at most two more blocks are
    taken. However it ends, `blocks` is closed by then; `interrupt` ends its wait for a block that does not come.
    Raises: what `blocks` raises, once the group before it was given.
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
    """The next item; `_TIMED_OUT` once the deadline has passed, or a stop was asked for and nothing is there."""
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
    """Feed `arrived`, ending with None or an exception; it waits while the queue is full."""

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
    except BaseException as error:  # it belongs to the consumer
        put(error)
    finally:
        blocks.close()  # the stages behind it end


class Replacements:
    """Which rows of the table's files this run replaces, and the files that keep the rows beside them."""

    def __init__(
        self, holders: Callable[[str], list[str]], rewrite: Callable[[Newer], Mapping[str, Rest]]
    ) -> None:
        """`holders` gives the files in which the rows of a planned file are now; `rewrite` writes files without
        the rows whose ids are in newer ones."""
        self._holders, self._rewrite = holders, rewrite

    def of(self, fragments: Iterable[Fragment]) -> dict[str, Fragment | None]:
        """The files that a commit of these fragments takes away, each with the one that keeps its other rows.

        Raises: MovedError if one of them is gone.
        """
        replaced: Newer = {}
        for fragment in fragments:
            for holder in {holder for path in fragment.replaces for holder in self._holders(path)}:
                replaced.setdefault(holder, []).append(fragment.path)
        written = self._rewrite(replaced) if replaced else {}
        return {path: rest.fragment for path, rest in written.items() if rest.removed}


class Committer:
    """Commits written fragments, on a thread, no more often than it must."""

    def __init__(
        self,
        table: Predictions,
        run_id: str,
        epoch: int,
        interval_s: float,
        committed: Callable[[list[Fragment]], None],
        held: Callable[[list[Fragment], bool], bool] = lambda fragments, last: False,
        rewrite: Callable[[Newer], Mapping[str, Rest]] = lambda newer: {},
    ) -> None:
        """All are called on the committing thread. `committed` gets the fragments of each commit, and `held` those
        of the next and whether it is the last: it can put it off, or raise to stop the run. `rewrite` gets visible
        files and those that replace some of their rows; it writes the other rows of each as a file of its own.
        """
        self._table, self._run_id, self._epoch = table, run_id, epoch
        self._spacing_s = (1 - GATHER_SHARE) * interval_s
        self._committed, self._held = committed, held
        self._replacements = Replacements(table.holders, rewrite)
        self._slots = threading.Semaphore(WRITES_IN_FLIGHT)
        self._written: queue.Queue[Future[list[Fragment]] | None] = queue.Queue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="commit")
        self._thread.start()

    def add(self, write: ObjectRef) -> None:
        """Take a running `write_fragments` task; waits while too many are in flight.

        Raises: whatever made an earlier write or commit fail.
        """
        self._slots.acquire()
        try:
            self._raise()
            future = write.future()
        except BaseException:
            self._slots.release()  # or close() would wait for it for ever
            raise
        future.add_done_callback(self._finished)

    def failed(self) -> bool:
        """Whether a write or a commit has failed; `add` and `close` raise the reason."""
        return self._error is not None

    def close(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Wait for the writes in flight, and commit them; once `stopped` says so, only for STOP_S more.

        Raises: like `add`; StorageError if a write does not end in time.
        """
        late = not self._drained(stopped)
        self._written.put(None)
        self._thread.join()
        self._raise()
        if late:
            raise StorageError(
                f"The store of the output did not take the last rows within {STOP_S:g} s of the stop. They were "
                "not committed; run again to process them."
            )

    @property
    def ended(self) -> bool:
        """Whether no commit is under way, and none follows."""
        return not self._thread.is_alive()

    def _drained(self, stopped: Callable[[], bool]) -> bool:
        """Wait until every slot is free; False if the time ran out."""
        deadline, free = math.inf, 0
        while free < WRITES_IN_FLIGHT and time.monotonic() < deadline:
            free += self._slots.acquire(timeout=POLL_S)
            if deadline == math.inf and stopped():
                deadline = time.monotonic() + STOP_S
        return free == WRITES_IN_FLIGHT

    def _finished(self, future: "Future[list[Fragment]]") -> None:
        self._written.put(future)
        self._slots.release()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            self._commit_until_closed()
        except BaseException as error:  # it is raised where the driver waits
            self._error = error
            for _ in range(2 * WRITES_IN_FLIGHT):
                self._slots.release()

    def _commit_until_closed(self) -> None:
        ready: list[Fragment] = []
        due = time.monotonic()
        failed: BaseException | None = None
        closing = False
        while not closing:
            for future in self._take(max(due - time.monotonic(), 0.001) if ready else None):
                error = future.exception() if future else None
                failed = failed or error
                closing = closing or future is None or error is not None
                ready += future.result() if future and not error else []
            if ready and (closing or time.monotonic() >= due):
                due = time.monotonic() + self._spacing_s
                if self._held(ready, closing) and not closing:
                    continue
                self._commit(ready)
                self._committed(ready)
                ready = []
        if failed is not None:  # what was written beside it is committed
            raise failed

    def _commit(self, ready: list[Fragment]) -> None:
        """One commit; once more if maintenance has moved the rows that it replaces."""
        for left in reversed(range(MOVES)):
            try:
                self._table.commit(ready, self._run_id, self._epoch, self._replacements.of(ready))
                return
            except MovedError:
                if not left:
                    raise
                self._table.catch_up(self._epoch)

    def _take(self, timeout_s: float | None) -> "list[Future[list[Fragment]] | None]":
        """The writes that have finished by now, at least one unless the time runs out; None stands for the end."""
        taken: list[Future[list[Fragment]] | None] = []
        try:
            taken.append(self._written.get(timeout=timeout_s))
            while True:
                taken.append(self._written.get_nowait())
        except queue.Empty:
            return taken
