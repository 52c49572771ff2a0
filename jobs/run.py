"""`lakelens run`: label and embed what is pending."""

import typer

from jobs import console, logs
from jobs.options import Address, ConfigPath, LogFormat, Overrides, Required, TakeOver, require_variables
from pipeline import config
from pipeline.config import RunConfig
from pipeline.face.interrupts import stop_on_interrupt
from pipeline.planning.selection import NEW_AND_CHANGED, Selection
from pipeline.run import run
from pipeline.summary import Summary

STOPPED = 130
"""Exit code of a run that was asked to stop: what a shell gives for Ctrl-C."""


def main(
    path: ConfigPath,
    overrides: Overrides = None,
    address: Address = None,
    take_over: TakeOver = False,
    required: Required = None,
    log_format: LogFormat = None,
) -> None:
    """Label and embed the images of CONFIG's manifest that its output lacks or holds in another version."""
    require_variables(required)
    show_run(config.load(path, overrides or []), address, take_over=take_over)


def show_run(
    settings: RunConfig,
    address: str | None = None,
    selection: Selection = NEW_AND_CHANGED,
    *,
    take_over: bool = False,
) -> Summary:
    """Run with a progress line, then print the account. Raises: typer.Exit for a stopped run or unlisted files."""
    with stop_on_interrupt(console.note) as stop, console.progress_line() as on_progress:
        summary = run(
            settings,
            selection=selection,
            take_over=take_over,
            address=address,
            stop=stop,
            on_start=logs.of_run,
            on_progress=on_progress,
            say=console.note,
        )
    if logs.as_json():
        logs.event("finished", **summary.facts())
    if summary.run_id is None:
        console.say("Nothing to do: no row is pending. Nothing was committed.")
    console.show_account(summary.account)
    for line in summary.lines:
        console.say(line)
    if summary.stopped:
        raise typer.Exit(STOPPED)
    console.exit_if_any(summary.listing.unlisted)
    return summary
