"""`lakelens plan`: what a run would do, without Ray."""

from jobs import console
from jobs.options import ConfigPath, Overrides
from pipeline import config, planning

FIGURES = ("input", "already_done", "duplicates", "invalid", "left")


def main(path: ConfigPath, overrides: Overrides = None) -> None:
    """Print, per dataset, what a run of CONFIG would find done and what it would do. Writes nothing."""
    settings = config.load(path, overrides or [])
    target = planning.target(settings)
    with planning.plan(settings.manifest, target.storage, target.table) as plan:
        plan.account.check()
        console.show_account(plan.account, always=FIGURES, left="pending")
        for problem, rows in plan.problems.items():
            console.say(f"invalid: {problem} ({rows:,} row{'' if rows == 1 else 's'})")
    console.say(f"output: {target.output}")
