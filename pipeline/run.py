"""The data path, from start to finish.

    manifest -> pending -> rows -> images -> scored -> fragments -> commits

It decides nothing about images, models or tables; it connects the rooms that do.
"""

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from uuid import uuid4

from pipeline import calibration
from pipeline.cluster import connection, node_resources, placement, pools
from pipeline.cluster.budget import FailureBudget
from pipeline.cluster.commit import Committer, Replacements
from pipeline.cluster.gather import GATHER_SHARE, gather
from pipeline.cluster.ledger import Ledger
from pipeline.cluster.metrics import DriverMetrics
from pipeline.cluster.run_work import RunWork
from pipeline.cluster.stages import STAGES, Setup, Stages
from pipeline.cluster.writers import Writers
from pipeline.config import RunConfig
from pipeline.engines import choice
from pipeline.engines.batching import block_rows
from pipeline.errors import AccountError, LakeLensError, OvertakenError, TableError
from pipeline.labels import head as heads
from pipeline.labels.relabelling import relabel
from pipeline.models.int8 import INT8
from pipeline.output import orphans
from pipeline.output.handover import HandoverFile
from pipeline.output.space import SpaceDescription
from pipeline.planning import claim
from pipeline.planning.account import Progress
from pipeline.planning.claim import Assignment, NothingPending
from pipeline.planning.selection import NEW_AND_CHANGED, Selection
from pipeline.storage.filesystems import Storage
from pipeline.summary import Summary


def run(
    config: RunConfig,
    *,
    selection: Selection = NEW_AND_CHANGED,
    take_over: bool = False,
    address: str | None = None,
    stop: threading.Event | None = None,
    on_start: Callable[[str], None] = lambda run_id: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    say: claim.Reporter = lambda sentence: None,
    stages: Stages = STAGES,
) -> Summary:
    """Label and embed the selected images of the manifest; by default those that the output does not hold yet.

    Set `stop` to end the run early: it commits the rows that are predicted, and the others count as `left`. With
    `take_over`, another run that writes to the output stops at its next commit. `on_start` receives the run's id
    if there is anything to do. `say` receives a sentence about everything that the run waits for.
    Raises: LakeLensError, one subclass for each reason why a run cannot start or continue.
    """
    _require_heads(config)
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex[:6]}"
    planned = claim.plan_and_claim(config, run_id, selection, take_over=take_over, say=say)
    if isinstance(planned, NothingPending):
        planned.account.check()
        summary = Summary(planned.output, planned.account, listing=planned.listing)
    else:
        on_start(run_id)
        with planned.heartbeat:
            owned = _Run(config, planned, stop or threading.Event(), on_progress)
            summary = owned.process(stages, address) if planned.pending else owned.only_clear_up()
    if not summary.stopped:
        _relabel(config, summary.output, address, say)
    return summary


def _require_heads(config: RunConfig) -> None:
    """Check before a run what its end needs. Raises: HeadError if a head is damaged or of another space."""
    if config.heads:
        target = claim.resolve_target(config)
        space = SpaceDescription.model_validate(target.description)
        for head in config.heads:
            heads.load(head.path, target.storage).require(space, target.output)


def _relabel(config: RunConfig, output: str, address: str | None, say: claim.Reporter) -> None:
    """Bring the labels of the config's heads to the version that the run has committed."""
    for head in config.heads:
        found = relabel(
            output,
            head.path,
            Storage(config.storage),
            name=head.name,
            top_k=config.labels.top_k,
            address=address,
        )
        say(found.sentence)


class _Run:
    """One claimed run, from its first block to its summary."""

    def __init__(
        self,
        config: RunConfig,
        assignment: Assignment,
        stop: threading.Event,
        on_progress: Callable[[Progress], None],
    ) -> None:
        # Every machine uses the model that the plan was made with.
        pinned = assignment.target.model.pinned(config.model)
        self._config = config.model_copy(update={"model": pinned})
        self._assignment, self._stop = assignment, stop
        self._handover = HandoverFile(assignment.folder, assignment.target.storage, assignment.previous)
        self._ledger = Ledger(
            assignment.account,
            assignment.pending,
            FailureBudget(config.failures, again=assignment.selection.failed),
            metrics=DriverMetrics(assignment.run_id),
            handover=self._handover,
            on_progress=on_progress,
        )
        self._unassigned = assignment.account.total.left - assignment.pending
        self._work = RunWork(assignment.run_id)
        self._committer: Committer | None = None

    def process(self, stages: Stages, address: str | None) -> Summary:
        """Process the pending rows, and account for every one of them."""
        orphans.delete(self._assignment.table, range(self._assignment.epoch))
        try:
            with connection.connected(address), connection.translated_errors(), self._work:
                setup = self._setup()
                self._commit_all(stages, setup)
        except BaseException as error:
            if self._may_clear_up(error):
                self._clear_up()
            raise
        self._clear_up()
        summary = self._summary(setup)
        self._check(summary)
        return summary

    def only_clear_up(self) -> Summary:
        """Delete what the previous run left; no row is pending."""
        self._clear_up()
        account = self._assignment.account
        account.check()
        return Summary(self._assignment.target.output, account, listing=self._assignment.listing)

    def _setup(self) -> Setup:
        """Choose the engine, the pools and the size of blocks for the resources that the nodes have now."""
        config, assignment, now = self._config, self._assignment, node_resources.live()
        gpus, tpus = pools.uses(config.workers, now, "GPU"), pools.uses(config.workers, now, "TPU")
        engine = self._ledger.engine = choice.choose(config.model, gpus=gpus, tpus=tpus)
        sizes = pools.plan_pools(config.workers, now, choice.ACCELERATORS[engine])
        if config.model.precision == INT8:
            calibration.ensure(config, assignment.target.output, assignment.files, self._work)
        accelerated = sizes.predictors.accelerator is not None
        actors = max(sizes.decoders.initial_size, sizes.predictors.initial_size)
        rate, rows_each = assignment.previous.rate_of(engine), assignment.pending // actors
        rows = block_rows(rate, accelerator=accelerated, rows_each=rows_each)
        sizes = sizes.limited_to(math.ceil(assignment.pending / rows))
        return Setup(config, assignment, sizes, engine, rows)

    def _commit_all(self, stages: Stages, setup: Setup) -> None:
        assignment, output = self._assignment, self._config.output
        target = assignment.target
        rows = stages.rows(setup)
        images = stages.images(rows, setup)
        scored = stages.scored(images, setup)
        writers = Writers(self._work, output=target.output, storage=target.storage, epoch=assignment.epoch)
        # Last: its thread ends only in `commit_all`.
        committer = self._committer = Committer(
            assignment.table,
            assignment.run_id,
            assignment.epoch,
            output.commit_interval_s,
            self._ledger,
            Replacements(assignment.table.holders, writers.rewrite),
        )
        groups = gather(
            self._ledger.counted(self._work.blocks(scored)),
            rows=output.rows_per_file,
            age_s=GATHER_SHARE * output.commit_interval_s,
            stopped=lambda: self._stop.is_set() or committer.failed(),
            interrupt=self._work.interrupt,
        )
        fragments = writers.written(groups)
        with placement.watched(setup.pools, self._config.workers.wait_s, self._ledger.changed, self._give_up):
            committer.commit_all(fragments, self._stop.is_set)

    def _give_up(self) -> None:
        self._stop.set()
        self._work.cancel_tasks()

    def _may_clear_up(self, error: BaseException) -> bool:
        """Tell whether no more commit of this run can land.

        If the last commit may have landed without an answer, the next run clears up, since it reads the log.
        """
        if isinstance(error, OvertakenError):
            return True
        return not isinstance(error, TableError) and (self._committer is None or self._committer.ended)

    def _clear_up(self) -> None:
        """Delete what this run has written and not committed. If the store fails, the next run does it."""
        with suppress(LakeLensError):
            orphans.delete(self._assignment.table, range(self._assignment.epoch + 1))
            self._handover.note_cleared_up()

    def _summary(self, setup: Setup) -> Summary:
        """Write the summary, and return it."""
        target = self._assignment.target
        summary = Summary(
            output=target.output,
            account=self._ledger.account,
            run_id=self._assignment.run_id,
            status=self._status(),
            seconds=self._ledger.elapsed_s,
            engine=setup.engine,
            device=setup.pools.predictors.accelerator or "CPU",
            worker_seconds=self._ledger.seconds,
            listing=self._assignment.listing,
        )
        record = summary.record(self._assignment.epoch, target.description)
        record.write(self._assignment.folder, target.storage)
        return summary

    def _status(self) -> str:
        left = self._ledger.account.total.left
        if not left:
            return "finished"
        if self._stop.is_set() and left > self._unassigned:
            return "stopped"
        return "limited" if left == self._unassigned else "incomplete"

    def _check(self, summary: Summary) -> None:
        self._ledger.account.check()
        lost = self._ledger.account.total.left - self._unassigned
        if lost and not summary.stopped:
            raise AccountError(
                f"{lost} of {self._assignment.pending} pending rows never came out of the pipeline. Run again to "
                "process them, and please report this defect."
            )
