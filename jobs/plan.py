"""`lakelens plan`: what a run would do, without Ray."""

from jobs import console
from jobs.options import ConfigPath, Overrides
from pipeline import config
from pipeline.config import RunConfig
from pipeline.planning import claim
from pipeline.planning.plan import open_plan
from pipeline.planning.selection import NEW_AND_CHANGED, Selection

FIGURES = ("input", "already_done", "duplicates", "invalid", "left")


def main(path: ConfigPath, overrides: Overrides = None) -> None:
    """Print, per dataset, what is done and what a run of CONFIG would do. Writes nothing."""
    show_plan(config.load(path, overrides or []), NEW_AND_CHANGED)


def show_plan(settings: RunConfig, selection: Selection) -> None:
    """Print what a run of this selection would find done and what it would do."""
    target = claim.resolve_target(settings)
    with open_plan(
        settings.manifest,
        target.storage,
        target.table,
        selection,
        settings.planning,
        id_format=target.format,
    ) as found:
        found.account.check()
        for line in (*target.model.notes, *found.lines):
            console.note(line)
        console.show_account(found.account, always=FIGURES, left="pending")
        for problem, rows in found.problems.items():
            first = f"{'first: ' if rows > 1 else ''}{found.first_invalid[problem]}"
            console.say(f"invalid: {problem} ({rows:,} row{'' if rows == 1 else 's'}; {first})")
        if found.pending < found.account.total.left:
            console.say(f"limited to {found.pending:,} of them")
    console.say(f"output: {target.output}")
    console.exit_if_any(found.listing.unlisted)
