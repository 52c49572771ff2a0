"""From a config to a claimed assignment: the model, its space, the pending rows, the output's next epoch.

It does not know how the pending rows are found, nor what becomes of them.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.config import RunConfig
from pipeline.errors import BusyError, MovedError, SpaceError, TableError
from pipeline.models import int8
from pipeline.models.model import Model, resolve
from pipeline.output import handover, heartbeat, space
from pipeline.output.handover import Handover
from pipeline.output.heartbeat import Heartbeat, Sign
from pipeline.output.layout import SPACE, Layout
from pipeline.output.table import Predictions
from pipeline.planning.account import Account
from pipeline.planning.listing_report import Listing
from pipeline.planning.plan import MISSING, Plan, Selection, plan
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import absolute

CLAIM_ATTEMPTS = 5
"""Plans made because the table moved between planning and claiming, before giving up."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """The embedding space that a config means: its model, its place, its table if it has one yet, its format."""

    storage: Storage
    model: Model
    description: dict[str, Any]
    output: str
    table: Predictions | None
    format: int = space.FORMAT


def target(config: RunConfig) -> Target:
    """Resolve the model and look at the output. Writes nothing.

    Raises: ModelError, StorageError, TableError, SpaceError if the output is another space.
    """
    storage = Storage(config.storage)
    model = resolve(config.model, storage)
    description = model.space(config.embedding, config.decode, int8.recipe(config.model.precision))
    output = absolute(space.location(config.output.path, model.slug, description))
    held = space.check(output, description, storage)
    table = Predictions.open(output, storage)
    if table is not None and held is None:
        raise SpaceError(
            f"{output} holds predictions but no {SPACE}, so it cannot be told which space they are of; put "
            "it back, or choose another output.path."
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

    `pending` is 0 where there is only something to clear up after the run before. `previous` is what that run left
    for this one.
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


def assign(
    config: RunConfig,
    run_id: str,
    selection: Selection = MISSING,
    *,
    take_over: bool = False,
    say: Say = lambda sentence: None,
) -> Assignment | NothingPending:
    """Plan, and claim the output's next epoch for what is pending; plan again if the table moved meanwhile.

    Raises: LakeLensError of any kind that `target` and `plan` raise; BusyError while another run works, unless
    it is to be taken over; TableError if the table keeps moving.
    """
    for _ in range(CLAIM_ATTEMPTS):
        where = target(config)
        with (
            suppress(MovedError),
            plan(
                config.manifest, where.storage, where.table, selection, config.planning, id_format=where.format
            ) as found,
        ):
            for line in found.lines:
                say(line)
            if not found.pending and not _is_left_uncleared(where, say):
                return NothingPending(where.output, found.account, found.listing)
            previous = _previous(where, say, take_over=take_over)
            assigned = _claimed(config, run_id, selection, where, found, previous)
            if assigned is not None:
                return assigned
    raise TableError(f"{where.output} is being written by other runs; try again when they have ended.")


def _is_left_uncleared(where: Target, say: Say) -> bool:
    """Tell whether the run that owns the output has ended, or was killed, before it had cleared up."""
    folder = _owner(where)
    if folder is None or not handover.is_uncleared(folder, where.storage):
        return False
    return not _is_alive(folder, where, say)


def _previous(where: Target, say: Say, *, take_over: bool) -> Handover:
    """Read what the run that owns the output leaves for the next one.

    Raises: BusyError if that run still works and may not be taken over.
    """
    folder = _owner(where)
    if folder is None:
        return Handover()
    if not take_over and _is_alive(folder, where, say):
        sign = heartbeat.read(folder, where.storage)
        raise BusyError(
            f"The run {sign.described} is writing {where.output}; wait for it, or take over from it with "
            "--take-over."
        )
    return handover.read(folder, where.storage)


def _owner(where: Target) -> str | None:
    """The folder of the run that owns the output."""
    owner = where.table.owner() if where.table is not None else None
    return None if owner is None else Layout(where.output).run(owner).uri


def _is_alive(folder: str, where: Target, say: Say) -> bool:
    def waiting(seen: Sign) -> None:
        say(f"waiting up to {heartbeat.SILENCE_S:.0f} s to see whether the run {seen.described} still works")

    return heartbeat.is_alive(folder, where.storage, waiting)


def _claimed(
    config: RunConfig, run_id: str, selection: Selection, where: Target, found: Plan, previous: Handover
) -> Assignment | None:
    """The plan as this run's own, written down; None if the table has moved."""
    files = Layout(where.output).run(run_id)
    beating = Heartbeat(files.uri, run_id, where.storage)  # before the claim: who loses that must see it
    try:
        table = where.table
        if table is None:
            if space.claim(where.output, where.description, where.storage).format != where.format:
                beating.discard()  # another run was first, of an older version: its ids are made by other rules
                return None
            table = Predictions.create(where.output, where.storage, found.kept)
        # A table that was just made and has a version already: another run was first, and may have committed.
        raced = where.table is None and table.version > 0
        facts = {"fingerprint": where.description["fingerprint"], "host": socket.gethostname()}
        epoch = None if raced else table.claim(run_id, found.kept, facts)
        if epoch is None:
            beating.discard()
            return None
        where.storage.write(files.config, config.to_yaml().encode())
        document = found.account.to_dict() | {"pending": found.pending, "invalid": found.problems}
        where.storage.write_json(files.plan, document | found.listing.to_dict())
        pending = tuple(found.write_pending(files.pending, where.storage))
    except BaseException:
        beating.discard()
        raise
    return Assignment(
        where,
        table,
        run_id,
        files.uri,
        found.account,
        selection,
        epoch,
        found.pending,
        pending,
        beating,
        previous,
        found.listing,
    )
