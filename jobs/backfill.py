"""`lakelens backfill`: process a part of the pending rows, or retry failed rows."""

from typing import Annotated

import typer

from jobs import options
from jobs.options import Address, Codes, ConfigPath, Datasets, Failed, Limit, LogFormat, Overrides, TakeOver, Where
from jobs.plan import show_plan
from jobs.run import show_run
from pipeline import config


def main(
    path: ConfigPath,
    failed: Failed = False,
    code: Codes = None,
    dataset: Datasets = None,
    where: Where = None,
    limit: Limit = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the plan of this selection, as `lakelens plan` does; write nothing."
        ),
    ] = False,
    overrides: Overrides = None,
    address: Address = None,
    take_over: TakeOver = False,
    log_format: LogFormat = None,
) -> None:
    """Process selected rows of CONFIG's manifest.

    Without --failed, backfill considers the rows that a run would: those that the output lacks, or holds with
    another version. With --failed it considers only the rows that the output holds as failed. --code, --dataset,
    --where and --limit narrow either. A result replaces the row's older one in the same commit.
    """
    settings, selected = config.load(path, overrides or []), options.selection(failed, code, dataset, where, limit)
    if dry_run:
        show_plan(settings, selected)
    else:
        show_run(settings, address, selected, take_over=take_over)
