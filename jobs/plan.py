"""`lakelens plan`: what a run would do, without Ray."""

from jobs import console
from jobs.options import ConfigPath, Overrides
from pipeline import config, planning


def main(path: ConfigPath, overrides: Overrides = None) -> None:
    """Print, per dataset, what a run of CONFIG would find done and what it would do. Writes nothing."""
    settings = config.load(path, overrides or [])
    target = planning.target(settings)
    with planning.plan(settings.manifest, target.storage, target.table) as plan:
        plan.account.check()
        console.show_account(plan.account, left="pending")
    console.say(f"output: {target.output}")
