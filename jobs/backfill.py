"""`lakelens backfill`: process what is missing, or again what failed, or a part of it."""

from typing import Annotated

import typer

from jobs import options
from jobs.options import Address, Codes, ConfigPath, Datasets, Failed, Limit, LogFormat, Overrides, TakeOver, Where
from jobs.plan import show_plan
from jobs.run import show_run
from pipeline import config
from pipeline.errors import ConfigError


def main(
    path: ConfigPath,
    missing: Annotated[
        bool,
        typer.Option("--missing", help="Process what the output lacks or holds of another version (default)."),
    ] = False,
    failed: Failed = False,
    code: Codes = None,
    dataset: Datasets = None,
    where: Where = None,
    limit: Limit = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    overrides: Overrides = None,
    address: Address = None,
    take_over: TakeOver = False,
    log_format: LogFormat = None,
) -> None:
    """Process rows of CONFIG's manifest that its output does not hold, or holds as failed.

    A row that is processed again takes the place of its old one in the same commit.
    """
    if missing and failed:
        raise ConfigError("--missing and --failed are two different things; give one of them.")
    settings, selected = config.load(path, overrides or []), options.selection(failed, code, dataset, where, limit)
    if dry_run:
        show_plan(settings, selected)
    else:
        show_run(settings, address, selected, take_over=take_over)
