"""`lakelens plan`: what a run would do, without Ray."""

from jobs import console
from jobs.options import ConfigPath, Overrides
from pipeline import config
from pipeline.config import RunConfig
from pipeline.planning.preview import plan_config
from pipeline.planning.selection import NEW_AND_CHANGED, Selection

FIGURES = ("input", "already_done", "duplicates", "invalid", "left")


def main(path: ConfigPath, overrides: Overrides = None) -> None:
    """Print, per dataset, what is done and what a run of CONFIG would do. Writes nothing."""
    show_plan(config.load(path, overrides or []), NEW_AND_CHANGED)


def show_plan(settings: RunConfig, selection: Selection) -> None:
    """Print what a run of this selection would find done and what it would do."""
    found = plan_config(settings, selection=selection)
    for line in found.notes:
        console.note(line)
    console.show_account(found.account, always=FIGURES, left="pending")
    for problem, rows in found.invalid.items():
        first = f"{'first: ' if rows > 1 else ''}{found.first_invalid[problem]}"
        console.say(f"invalid: {problem} ({rows:,} row{'' if rows == 1 else 's'}; {first})")
    if found.pending < found.account.total.left:
        console.say(f"limited to {found.pending:,} of them")
    console.say(f"output: {found.output}")
    console.exit_if_any(found.unlisted)
