"""What a run of a config would find and do: counted, and nothing written."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config import RunConfig
from pipeline.planning import claim
from pipeline.planning.account import Account
from pipeline.planning.plan import open_plan
from pipeline.planning.selection import NEW_AND_CHANGED, Selection


@dataclass(frozen=True)
class PlanPreview:
    """What a run of a config would find and do.

    `account` counts every row of the manifest, by dataset; its `left` rows are those without a result. `pending`
    is how many of them the run would process: fewer than `left` with a limit. `invalid` counts rows by the
    reason why they are invalid; `first_invalid` has the place of the first one. `notes` are sentences about the
    model and the manifest. `unlisted` are folders and files that could not be listed.
    """

    output: str
    account: Account
    pending: int
    invalid: Mapping[str, int]
    first_invalid: Mapping[str, str]
    notes: tuple[str, ...]
    unlisted: tuple[str, ...]


def plan_config(config: RunConfig, *, selection: Selection = NEW_AND_CHANGED) -> PlanPreview:
    """Count what a run of this config would do. Writes nothing, opens no image, and does not start Ray.

    Raises: LakeLensError, as a run does before it starts.
    """
    target = claim.resolve_target(config)
    manifest, limits = config.manifest, config.planning
    with open_plan(manifest, target.storage, target.table, selection, limits, id_format=target.format) as found:
        found.account.check()
        return PlanPreview(
            output=target.output,
            account=found.account,
            pending=found.pending,
            invalid=dict(found.problems),
            first_invalid=dict(found.first_invalid),
            notes=(*target.model.notes, *found.lines),
            unlisted=tuple(found.listing.unlisted),
        )
