"""From a config to a claimed assignment: the model, its space, the pending rows, the output's next epoch.

This module does not know how the pending rows are found, or what happens to them afterwards.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.config import RunConfig
from pipeline.errors import BusyError, MovedError, SpaceError, TableError
from pipeline.models import int8
from pipeline.models.model import Model, resolve
from pipeline.output import handover, heartbeat, space
from pipeline.output.handover import Handover
from pipeline.output.heartbeat import Heartbeat, HeartbeatRecord
from pipeline.output.layout import SPACE, Layout, RunFolder
from pipeline.output.table import Predictions
from pipeline.planning.account import Account
from pipeline.planning.listing_report import Listing
from pipeline.planning.plan import Plan, open_plan
from pipeline.planning.selection import NEW_AND_CHANGED, Selection
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import absolute, without_query

CLAIM_ATTEMPTS = 5
"""Plans to make before giving up, if other commits land between planning and claiming."""

Reporter = Callable[[str], None]
"""Receives a sentence about each thing that the run waits for or adds."""


@dataclass(frozen=True)
class Target:
    """The output that a config names: its model, description and URI. `table` is None before the first run."""

    storage: Storage
    model: Model
    description: dict[str, Any]
    output: str
    table: Predictions | None
    format: int = space.FORMAT


def resolve_target(config: RunConfig) -> Target:
    """Resolve the model, and open the output. Writes nothing.

    Raises: ModelError, StorageError, TableError; SpaceError if the output is another embedding space.
    """
    storage = Storage(config.storage)
    model = resolve(config.model, storage)
    description = model.space(config.embedding, config.decode, int8.recipe(config.model.precision))
    output = absolute(space.location(config.output.path, model.slug, description))
    held = space.check(output, description, storage)
    table = Predictions.open(output, storage)
    if table is not None and held is None:
        raise SpaceError(
            f"{output} holds predictions but no {SPACE}, which names their model. Restore that file, or "
            "choose another output.path."
        )
    return Target(storage, model, description, output, table, held.format if held else space.FORMAT)


@dataclass(frozen=True)
class NothingPending:
    """A plan with no row to process. Nothing was written anywhere."""

    output: str
    account: Account
    listing: Listing


@dataclass(frozen=True)
class Assignment:
    """A plan that this run owns: its epoch, and `pending` rows of `account` as files below `folder`.

    `pending` is 0 if this run only has to clear up after the previous one. `previous` is the handover of that run.
    """

    target: Target
    table: Predictions
    run_id: str
    folder: str
    account: Account
    selection: Selection
    epoch: int
    pending: int
    files: tuple[str, ...]
    heartbeat: Heartbeat
    previous: Handover
    listing: Listing


def plan_and_claim(
    config: RunConfig,
    run_id: str,
    selection: Selection = NEW_AND_CHANGED,
    *,
    take_over: bool = False,
    say: Reporter = lambda sentence: None,
) -> Assignment | NothingPending:
    """Plan, and claim the output's next epoch for the pending rows. Plan again if the table moved meanwhile.

    Raises: what `resolve_target` and `open_plan` raise; BusyError while another run is alive, unless `take_over`;
    TableError if the table keeps moving.
    """
    for _ in range(CLAIM_ATTEMPTS):
        where = resolve_target(config)
        with (
            suppress(MovedError),
            open_plan(
                config.manifest, where.storage, where.table, selection, config.planning, id_format=where.format
            ) as found,
        ):
            for line in (*where.model.notes, *found.lines):
                say(line)
            if not found.pending and not _is_left_uncleared(where, say):
                return NothingPending(where.output, found.account, found.listing)
            previous = _previous(where, say, take_over=take_over)
            assigned = _claimed(config, run_id, selection, where, found, previous, say)
            if assigned is not None:
                return assigned
    raise TableError(f"Other runs keep writing to {where.output}. Try again when they have ended.")


def _is_left_uncleared(where: Target, say: Reporter) -> bool:
    """Tell whether the run that owns the output has ended or was killed without clearing up."""
    folder = _owner(where)
    if folder is None or not handover.is_uncleared(folder, where.storage):
        return False
    return not _is_alive(folder, where, say)


def _previous(where: Target, say: Reporter, *, take_over: bool) -> Handover:
    """Read the handover of the run that owns the output.

    Raises: BusyError if that run is still alive, unless `take_over`.
    """
    folder = _owner(where)
    if folder is None:
        return Handover()
    if not take_over and _is_alive(folder, where, say):
        sign = heartbeat.read(folder, where.storage)
        raise BusyError(
            f"The run {sign.described} is writing to {where.output}. Wait for it, or stop it and take over with "
            "--take-over."
        )
    return handover.read(folder, where.storage)


def _owner(where: Target) -> str | None:
    """Return the folder of the run that owns the output; None if no run does."""
    owner = where.table.owner() if where.table is not None else None
    return None if owner is None else Layout(where.output).run(owner).uri


def _is_alive(folder: str, where: Target, say: Reporter) -> bool:
    def waiting(seen: HeartbeatRecord) -> None:
        say(f"waiting up to {heartbeat.SILENCE_S:.0f} s to see whether the run {seen.described} still works")

    return heartbeat.is_alive(folder, where.storage, waiting)


def _claimed(
    config: RunConfig,
    run_id: str,
    selection: Selection,
    where: Target,
    found: Plan,
    previous: Handover,
    say: Reporter,
) -> Assignment | None:
    """Claim the plan for this run, and write it down. Return None if the table has moved since the plan."""
    files = Layout(where.output).run(run_id)
    # Start it before the claim: a run that loses the race for the epoch must see this heartbeat.
    beating = Heartbeat(files.uri, run_id, where.storage)
    try:
        claimed = _claimed_table(where, run_id, found, say)
        if claimed is None:
            beating.discard()
            return None
        pending = _written_down(config, files, where, found)
    except BaseException:
        beating.discard()
        raise
    return Assignment(
        target=where,
        table=claimed[0],
        run_id=run_id,
        folder=files.uri,
        account=found.account,
        selection=selection,
        epoch=claimed[1],
        pending=found.pending,
        files=pending,
        heartbeat=beating,
        previous=previous,
        listing=found.listing,
    )


def _claimed_table(where: Target, run_id: str, found: Plan, say: Reporter) -> tuple[Predictions, int] | None:
    """Return the table and this run's epoch; None if another run was faster."""
    table, missing = where.table, pa.schema([])
    if table is not None:
        missing = schema.columns_to_add(table.columns(), found.kept, table.uri)
    elif space.claim(where.output, where.description, where.storage).format != where.format:
        return None  # an older LakeLens has made the space, and its default ids follow other rules
    else:
        table = Predictions.create(where.output, where.storage, found.kept)
        if table.version > 0:
            return None  # another run has made the table, and may have committed rows
    facts = {"fingerprint": where.description["fingerprint"], "host": socket.gethostname()}
    epoch = table.claim(run_id, found.kept, facts)
    if epoch is None:
        return None
    if len(missing):
        say(f"added to {where.output}: the columns {', '.join(missing.names)}; they are null in its older rows")
    return table, epoch


def _written_down(config: RunConfig, files: RunFolder, where: Target, found: Plan) -> tuple[str, ...]:
    """Write the config, the account and the pending rows into the run's folder. Return the files of the rows."""
    where.storage.write(files.config, _without_signatures(config).to_yaml().encode())
    account = found.account.to_dict() | {"pending": found.pending, "invalid": found.problems}
    where.storage.write_json(files.plan, account | found.listing.to_dict())
    return tuple(found.write_pending(files.pending, where.storage))


def _without_signatures(config: RunConfig) -> RunConfig:
    """Return the config without the queries of manifest URLs, which may be signatures: others read this file."""
    paths = tuple(without_query(path) for path in config.manifest.path)
    return config.model_copy(update={"manifest": config.manifest.model_copy(update={"path": paths})})
