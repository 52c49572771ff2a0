"""`lakelens backfill`: process again what failed, or what is missing."""

from typing import Annotated

import typer

from jobs.options import Address, ConfigPath, Overrides
from jobs.run import show_run
from pipeline import config
from pipeline.errors import ConfigError, ErrorCode
from pipeline.planning import Selection


def main(
    path: ConfigPath,
    failed: Annotated[
        bool, typer.Option("--failed", help="Process the failed rows again, and no others.")
    ] = False,
    code: Annotated[
        list[str] | None, typer.Option(help="Only rows that failed with this error code; repeatable.")
    ] = None,
    overrides: Overrides = None,
    address: Address = None,
) -> None:
    """Process rows of CONFIG's manifest that its output holds as failed, or does not hold at all.

    A row that is processed again takes the place of its old one in the same commit.
    """
    codes = tuple(code or ())
    if codes and not failed:
        raise ConfigError("--code narrows --failed; give both.")
    unknown = [one for one in codes if one not in set(ErrorCode)]
    if unknown:
        raise ConfigError(f"--code {unknown[0]} is not an error code; they are {', '.join(ErrorCode)}.")
    show_run(config.load(path, overrides or []), address, Selection(failed=failed, codes=codes))
