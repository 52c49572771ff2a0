"""The data path, start to finish.

    manifest -> pending -> read_pending -> Decoder -> Predictor -> write_fragments -> commit

It decides nothing about images, models or tables; it connects those that do.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import ray
from ray.data import Dataset

from pipeline import calibration, schema
from pipeline.cluster import connection, node_resources, pools
from pipeline.cluster.commit import GATHER_SHARE, Committer, Newer, gather
from pipeline.cluster.metrics import DriverMetrics
from pipeline.cluster.pools import Pools
from pipeline.cluster.started import Block, Blocks, Started
from pipeline.cluster.workers import Decoder, Predictor, read_pending, write_fragments, write_rest
from pipeline.config import RunConfig
from pipeline.engines import choice
from pipeline.engines.batching import block_rows
from pipeline.errors import AccountError, FailureRateError, LakeLensError, OvertakenError, TableError
from pipeline.models.int8 import INT8
from pipeline.output import orphans
from pipeline.output.fragment import Fragment, Rest
from pipeline.planning import claim
from pipeline.planning.account import Account, Progress
from pipeline.planning.claim import Assignment
from pipeline.planning.plan import MISSING, Selection
from pipeline.schema import FAILED, OK
from pipeline.stage_seconds import Seconds
from pipeline.summary import Summary

RATE_S = 5.0
"""Seconds that predictors must have worked before their rate says something."""
REFUSED_ROWS = 10
"""A run of at least so many images in which every one is refused by its store is stopped, however small it is."""


def run(
    config: RunConfig,
    *,
    selection: Selection = MISSING,
    take_over: bool = False,
    address: str | None = None,
    stop: threading.Event | None = None,
    on_start: Callable[[str], None] = lambda run_id: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    say: claim.Say = lambda sentence: None,
) -> Summary:
    """Label and embed the selected images of the manifest: by default those that the output does not hold yet.

    Setting `stop` ends it early: what is predicted is committed, the rest is `left`. With `take_over` a run that
    is at work on the output is stopped at its next commit. `on_start` gets the run's id, if there is anything to
    do; `say` gets a sentence where there is something to wait for. Raises: LakeLensError, one of its kinds for
    each way in which a run cannot start or go on.
    """
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex[:6]}"
    assignment = claim.assign(config, run_id, selection, take_over=take_over, say=say)
    if assignment.heartbeat is None:
        assignment.account.check()
        return Summary(assignment.target.output, assignment.account, listing=assignment.listing)
    on_start(run_id)
    try:
        owned = _Run(config, assignment, stop or threading.Event(), on_progress)
        return owned.go(address) if assignment.pending else owned.only_clear_up()
    finally:
        assignment.heartbeat.stop()


def pending(assignment: Assignment, rows: int) -> Dataset:
    """In blocks of `rows`: image_id, uri, dataset, version, offset, length, where its bytes and its old row are,
    and the kept columns."""
    # `from_arrow` would start a task for each file, which waits for a CPU.
    named = [{schema.URI: uri} for uri in assignment.files]
    files = ray.data.from_items(named, override_num_blocks=len(named))
    reading = pools.reading(len(assignment.files))
    read = files.map_batches(read_pending, fn_kwargs={"storage": assignment.target.storage}, **reading)
    return pools.in_blocks(read, rows)


def decoded(config: RunConfig, assignment: Assignment, sizes: Pools, rows: int) -> Dataset:
    """+ pixels u8 (H, W, 3), width, height, content_sha256, decode_notes, stage, error_code, message, attempts."""
    steps = assignment.target.model.preprocessing
    read, run_id = pending(assignment, rows), assignment.run_id
    return pools.pooled(read, Decoder, sizes.decoders, run_id=run_id, config=config, steps=steps)


def dataset(config: RunConfig, assignment: Assignment, sizes: Pools, engine: str, rows: int) -> Dataset:
    """The stages, with the columns that each adds; a block of `rows` stays a block from the first to the last."""
    return pools.pooled(
        decoded(config, assignment, sizes, rows),
        Predictor,
        sizes.predictors,
        config=config,
        weights_sha256=assignment.target.model.weights_sha256,
        engine=engine,
        threads=sizes.predictor_threads,
        share=sizes.predictors.share,
        block_rows=rows,
        output=assignment.target.output,
        run_id=assignment.run_id,
    )  # + outcome, label, score, labels, embedding, embedding_norm, run_id, finished_at; − pixels, offset, length


class _Run:
    """One claimed run, from its first block to its summary; it keeps the account."""

    def __init__(
        self,
        config: RunConfig,
        assignment: Assignment,
        stop: threading.Event,
        on_progress: Callable[[Progress], None],
    ) -> None:
        # On every machine the model that was planned with.
        pinned = assignment.target.model.pinned(config.model)
        self.config = config.model_copy(update={"model": pinned})
        self.assignment, self.stop, self.on_progress = assignment, stop, on_progress
        self.account, self.pending, self.predicted = assignment.account, assignment.pending, 0
        self.unassigned = assignment.account.total.left - assignment.pending
        self.began_s, self.reporting = time.monotonic(), threading.Lock()
        self.moved: Callable[[], None] = lambda: None
        self.settled: Callable[[], bool] = lambda: True
        self.started = Started(assignment.run_id)
        self.metrics, self.seconds = DriverMetrics(assignment.run_id), Seconds()
        assert assignment.target.table is not None  # it has been claimed
        self.table, self.storage = assignment.target.table, assignment.target.storage

    def go(self, address: str | None) -> Summary:
        """Process the pending rows and account for every one of them."""
        orphans.remove(self.table, range(self.assignment.epoch))
        try:
            with connection.connected(address), connection.explained(), self.started:
                now, workers = node_resources.alive(), self.config.workers
                gpus, tpus = pools.offers(workers, now, "GPU"), pools.offers(workers, now, "TPU")
                engine = choice.choose(self.config.model, gpus=gpus, tpus=tpus)
                sizes = pools.sized(workers, now, choice.ACCELERATORS[engine])
                if self.config.model.precision == INT8:
                    output, files = self.assignment.target.output, self.assignment.files
                    calibration.ensure(self.config, output, files, self.started)
                rows = block_rows(self._known_rate(engine), accelerator=sizes.predictors.accelerator is not None)
                sizes = sizes.for_blocks(math.ceil(self.pending / rows))
                self._process(dataset(self.config, self.assignment, sizes, engine, rows), sizes)
        except BaseException as error:
            # Where its last commit may have landed unseen, or may land yet, the next run, which reads the log,
            # clears up.
            if isinstance(error, OvertakenError) or (not isinstance(error, TableError) and self.settled()):
                self._clear_up()
            raise
        self._clear_up()
        summary = Summary(
            output=self.assignment.target.output,
            account=self.account,
            run_id=self.assignment.run_id,
            status=self._status(),
            seconds=time.monotonic() - self.began_s,
            engine=engine,
            device=sizes.predictors.accelerator or "CPU",
            worker_seconds=self.seconds,
            listing=self.assignment.listing,
        )
        summary.record(self.assignment.epoch, self.assignment.target.description).write(
            self.assignment.folder, self.storage
        )
        self._check(summary)
        return summary

    def only_clear_up(self) -> Summary:
        """Nothing is pending, but the run before this one did not clear up."""
        self._clear_up()
        self.account.check()
        return Summary(self.assignment.target.output, self.account, listing=self.assignment.listing)

    def _clear_up(self) -> None:
        """Delete what this run wrote and did not commit, now that its writers have stopped; if the store does
        not answer now, the next run does it."""
        with suppress(LakeLensError):
            orphans.remove(self.table, range(self.assignment.epoch + 1))
            self._note(cleared_up=True)

    def _process(self, scored: Dataset, sizes: Pools) -> None:
        output = self.config.output
        committer = Committer(
            self.table,
            self.assignment.run_id,
            self.assignment.epoch,
            output.commit_interval_s,
            self._committed,
            self._held,
            self._rewrite,
        )
        self.settled = lambda: committer.ended

        def give_up() -> None:
            self.stop.set()
            self.started.cancel_tasks()

        with pools.watched(sizes, self.config.workers.wait_s, give_up) as self.moved:
            try:
                for group in self._groups(scored, committer):
                    write = write_fragments.remote(*(ref for ref, _ in group), **self._place())
                    committer.add(self.started.task(write))
            finally:
                committer.close(self.stop.is_set)

    def _groups(self, scored: Dataset, committer: Committer) -> Iterator[list[Block]]:
        """Finished blocks, as many as go into a file, until a stop is asked for or a commit has failed."""
        output = self.config.output
        return gather(
            self._counted(self.started.blocks(scored)),
            rows=output.rows_per_file,
            age_s=GATHER_SHARE * output.commit_interval_s,
            stopped=lambda: self.stop.is_set() or committer.failed(),
            interrupt=self.started.interrupt,
        )

    def _counted(self, blocks: Blocks) -> Blocks:
        for block in blocks:
            self.moved()
            self.predicted += block[1]
            self._report()
            yield block

    def _known_rate(self, engine: str) -> float | None:
        """Images/s of one predictor, as the run before this one measured it with this engine; None if none did."""
        before = self.assignment.before
        rate = before.images_per_s if before.engine == engine else None
        self._note(engine=engine, images_per_s=rate)
        return rate

    def _note(self, **facts: Any) -> None:
        assert self.assignment.heartbeat is not None
        self.assignment.heartbeat.note(**facts)

    def _committed(self, fragments: list[Fragment]) -> None:
        self.account = self._with(fragments)
        self.seconds = sum((fragment.seconds for fragment in fragments), self.seconds)
        self.metrics.committed(sum(fragment.rows for fragment in fragments))
        self.moved()
        if self.seconds.predict > RATE_S:
            done = self.account.total.ok + self.account.total.failed
            self._note(images_per_s=round(done / self.seconds.predict, 3))
        self._report()

    def _place(self) -> dict[str, Any]:
        """Where the tasks that write files put them."""
        target = self.assignment.target
        return {"output": target.output, "storage": target.storage, "epoch": self.assignment.epoch}

    def _rewrite(self, replaced: Newer) -> dict[str, Rest]:
        place = self._place()
        refs = [self.started.task(write_rest.remote(path, newer, **place)) for path, newer in replaced.items()]
        return dict(zip(replaced, ray.get(refs), strict=True))

    def _held(self, fragments: list[Fragment], last: bool) -> bool:
        """Rows are not committed while more of them fail than may: with enough rows the run is stopped.

        Rows that are tried again may fail again, but none is written off while its store refuses every one.
        """
        after, limits = self._with(fragments), self.config.failures
        done = after.total.ok + after.total.failed
        refused = sum(fragment.refused for fragment in fragments) == done
        if after.failure_rate() <= limits.max_rate or (self.assignment.selection.failed and not refused):
            return False
        if done >= limits.min_rows or (last and refused and done >= REFUSED_ROWS):
            examples = [example for fragment in fragments for example in fragment.examples]
            raise FailureRateError(
                f"{after.total.failed} of the first {done} images failed, which is more than failures.max_rate = "
                f"{limits.max_rate:g}; the last of them were not committed. Some are {', '.join(examples[:3])}."
            )
        return True

    def _with(self, fragments: list[Fragment]) -> Account:
        """The account once these are committed."""
        return self.account.after(
            (f.dataset, f.rows if f.outcome == OK else 0, f.rows if f.outcome == FAILED else 0) for f in fragments
        )

    def _report(self) -> None:
        """Called by the thread that takes blocks and by the one that commits."""
        with self.reporting:
            elapsed_s, total = time.monotonic() - self.began_s, self.account.total
            self.metrics.waiting(self.predicted - total.ok - total.failed)
            self.on_progress(Progress(self.pending, self.predicted, self.account, elapsed_s))

    def _check(self, summary: Summary) -> None:
        self.account.check()
        lost = self.account.total.left - self.unassigned
        if lost and not summary.stopped:
            raise AccountError(
                f"{lost} of {self.pending} pending rows never came out of the pipeline; "
                "run again to process them, and please report this defect."
            )

    def _status(self) -> str:
        left = self.account.total.left
        if not left:
            return "finished"
        if self.stop.is_set() and left > self.unassigned:
            return "stopped"
        return "limited" if left == self.unassigned else "incomplete"
