"""Write tasks -> commits, by reference: no row passes through the driver.

`Committer` keeps a few writes in flight, and commits what they have written on a thread of its own. `gather` and
`Committer` limit what a killed run loses: a row waits at most GATHER_SHARE of the commit interval for its write,
and at most the rest of the interval for its commit.
"""

import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from contextlib import closing

from ray import ObjectRef

from pipeline.cluster.gather import GATHER_SHARE, POLL_S
from pipeline.cluster.ledger import Ledger
from pipeline.errors import MovedError, StorageError
from pipeline.output.fragment import Fragment, RemainingRows, WriteResult
from pipeline.output.table import Predictions

WRITES_IN_FLIGHT = 4
"""Fragment writes at once: enough to hide an object store's latency, few enough to bound memory."""
STOP_S = 45.0
"""Seconds that a stopping run waits for writes in flight. A job has a minute in all."""
MOVES = 5
"""Attempts of a commit that replaces rows. Maintenance may move these rows before each attempt."""

Newer = dict[str, list[str]]
"""For each file that may hold older rows, the files with newer rows, as paths below the table.

The ids of the rows are in these files, and do not pass through the driver."""


class Replacements:
    """Finds the files whose rows this run replaces, and writes their other rows to new files."""

    def __init__(
        self, holders: Callable[[str], list[str]], rewrite: Callable[[Newer], Mapping[str, RemainingRows]]
    ) -> None:
        """Take two functions.

        `holders` returns the files that now hold the rows of a planned file. `rewrite` writes files again without
        the rows whose ids are in newer files.
        """
        self._holders, self._rewrite = holders, rewrite

    def of(self, results: Iterable[WriteResult]) -> dict[str, Fragment | None]:
        """Return the files that a commit of these results removes, each with the file that keeps its other rows.

        Raises: MovedError if one of the removed files no longer exists.
        """
        replaced: Newer = {}
        for result in results:
            for holder in {holder for path in result.replaces for holder in self._holders(path)}:
                replaced.setdefault(holder, []).append(result.fragment.path)
        written = self._rewrite(replaced) if replaced else {}
        return {path: remainder.fragment for path, remainder in written.items() if remainder.removed}


class Committer:
    """Commits written fragments on a thread, with a least time between two commits."""

    def __init__(
        self,
        table: Predictions,
        run_id: str,
        epoch: int,
        interval_s: float,
        ledger: Ledger,
        replacements: Replacements,
    ) -> None:
        """Start the commit thread. It asks the ledger whether to hold a commit back, and reports commits to it."""
        self._table, self._run_id, self._epoch = table, run_id, epoch
        self._spacing_s = (1 - GATHER_SHARE) * interval_s
        self._ledger, self._replacements = ledger, replacements
        self._slots = threading.Semaphore(WRITES_IN_FLIGHT)
        self._written: queue.Queue[Future[list[WriteResult]] | None] = queue.Queue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="commit")
        self._thread.start()

    def commit_all(self, writes: Generator[ObjectRef, None, None], stopped: Callable[[], bool]) -> None:
        """Take write tasks as they start, and commit what they write.

        Once `stopped` returns True, wait at most STOP_S more. Raises: what `add`, `close` and `writes` raise.
        """
        try:
            with closing(writes):
                for write in writes:
                    self.add(write)
        finally:
            self.close(stopped)

    def add(self, write: ObjectRef) -> None:
        """Take a running write task. Wait while WRITES_IN_FLIGHT tasks are running.

        Raises: the error of an earlier write or commit.
        """
        self._slots.acquire()
        try:
            self._raise()
            future = write.future()
        except BaseException:
            self._slots.release()  # otherwise close() would wait for it forever
            raise
        future.add_done_callback(self._finished)

    def failed(self) -> bool:
        """Tell whether a write or a commit has failed. `add` and `close` raise the error."""
        return self._error is not None

    def close(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Wait for the writes in flight, and commit them. Once `stopped` returns True, wait at most STOP_S more.

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
        """Whether the commit thread has ended: no commit is running, and none follows."""
        return not self._thread.is_alive()

    def _drained(self, stopped: Callable[[], bool]) -> bool:
        """Wait until every slot is free. Return False if the time ran out."""
        deadline, free = math.inf, 0
        while free < WRITES_IN_FLIGHT and time.monotonic() < deadline:
            free += self._slots.acquire(timeout=POLL_S)
            if deadline == math.inf and stopped():
                deadline = time.monotonic() + STOP_S
        return free == WRITES_IN_FLIGHT

    def _finished(self, future: "Future[list[WriteResult]]") -> None:
        self._written.put(future)
        self._slots.release()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            self._commit_until_closed()
        except BaseException as error:  # `add` and `close` raise it in the main thread
            self._error = error
            for _ in range(2 * WRITES_IN_FLIGHT):
                self._slots.release()

    def _commit_until_closed(self) -> None:
        ready: list[WriteResult] = []
        due = time.monotonic()
        failed: BaseException | None = None
        last = False
        while not last:
            for future in self._take(max(due - time.monotonic(), 0.001) if ready else None):
                error = future.exception() if future else None
                failed = failed or error
                last = last or future is None or error is not None
                ready += future.result() if future and not error else []
            if ready and (last or time.monotonic() >= due):
                due = time.monotonic() + self._spacing_s
                if self._ledger.holds(ready, last=last) and not last:
                    continue
                self._commit(ready)
                self._ledger.committed(ready)
                ready = []
        if failed is not None:  # only now: the other writes are committed
            raise failed

    def _commit(self, ready: list[WriteResult]) -> None:
        """Commit, and try again if maintenance has moved the rows to replace."""
        for left in reversed(range(MOVES)):
            try:
                fragments = [result.fragment for result in ready]
                self._table.commit(fragments, self._run_id, self._epoch, self._replacements.of(ready))
                return
            except MovedError:
                if not left:
                    raise
                self._table.catch_up(self._epoch)

    def _take(self, timeout_s: float | None) -> "list[Future[list[WriteResult]] | None]":
        """Return the writes that have finished: at least one, unless the time runs out. None marks the end."""
        taken: list[Future[list[WriteResult]] | None] = []
        try:
            taken.append(self._written.get(timeout=timeout_s))
            while True:
                taken.append(self._written.get_nowait())
        except queue.Empty:
            return taken
