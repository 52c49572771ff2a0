"""Write tasks -> commits, by reference: no row passes through the driver.

`Committer` keeps a few writes in flight and commits what is written, on a thread of its own. With `gather` it
bounds what a killed run loses: a row waits at most GATHER_SHARE of the commit interval to be written, and then the
rest of it to be committed.
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
"""Seconds that a run that was asked to stop waits for files that are being written: a job has a minute in all."""
MOVES = 5
"""How often in a row maintenance may get ahead of one commit that replaces rows."""

Newer = dict[str, list[str]]
"""For each file that may hold older rows, the files with the rows that replace them, as paths below the table.
The ids are in these files, and do not pass through the driver."""


class Replacements:
    """Which rows of the table's files this run replaces, and the files that keep the rows beside them."""

    def __init__(
        self, holders: Callable[[str], list[str]], rewrite: Callable[[Newer], Mapping[str, RemainingRows]]
    ) -> None:
        """`holders` gives the files in which the rows of a planned file are now; `rewrite` writes files without
        the rows whose ids are in newer ones."""
        self._holders, self._rewrite = holders, rewrite

    def of(self, results: Iterable[WriteResult]) -> dict[str, Fragment | None]:
        """The files that a commit of these results takes away, each with the one that keeps its other rows.

        Raises: MovedError if one of them is gone.
        """
        replaced: Newer = {}
        for result in results:
            for holder in {holder for path in result.replaces for holder in self._holders(path)}:
                replaced.setdefault(holder, []).append(result.fragment.path)
        written = self._rewrite(replaced) if replaced else {}
        return {path: remainder.fragment for path, remainder in written.items() if remainder.removed}


class Committer:
    """Commits written fragments, on a thread, no more often than it must."""

    def __init__(
        self,
        table: Predictions,
        run_id: str,
        epoch: int,
        interval_s: float,
        ledger: Ledger,
        replacements: Replacements,
    ) -> None:
        """The commit thread asks the ledger whether to hold a commit back, and tells it what was committed."""
        self._table, self._run_id, self._epoch = table, run_id, epoch
        self._spacing_s = (1 - GATHER_SHARE) * interval_s
        self._ledger, self._replacements = ledger, replacements
        self._slots = threading.Semaphore(WRITES_IN_FLIGHT)
        self._written: queue.Queue[Future[list[WriteResult]] | None] = queue.Queue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="commit")
        self._thread.start()

    def commit_all(self, writes: Generator[ObjectRef, None, None], stopped: Callable[[], bool]) -> None:
        """Take the write tasks as they are started, and commit what they write.

        Once `stopped` says so, it waits only STOP_S more. Raises: what `add`, `close` and `writes` raise.
        """
        try:
            with closing(writes):
                for write in writes:
                    self.add(write)
        finally:
            self.close(stopped)

    def add(self, write: ObjectRef) -> None:
        """Take a running write task; waits while too many are in flight.

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

    def _finished(self, future: "Future[list[WriteResult]]") -> None:
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
        if failed is not None:  # what was written beside it is committed
            raise failed

    def _commit(self, ready: list[WriteResult]) -> None:
        """One commit; once more if maintenance has moved the rows that it replaces."""
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
        """The writes that have finished by now, at least one unless the time runs out; None stands for the end."""
        taken: list[Future[list[WriteResult]] | None] = []
        try:
            taken.append(self._written.get(timeout=timeout_s))
            while True:
                taken.append(self._written.get_nowait())
        except queue.Empty:
            return taken
