"""`lakelens run`: label and embed what is pending."""

from typing import Annotated

import typer

from jobs import console
from jobs.options import ConfigPath, Overrides
from pipeline import config
from pipeline.config import RunConfig
from pipeline.run import Summary, run

STOPPED = 130
"""Exit code of a run that was asked to stop: what a shell gives for Ctrl-C."""


def main(
    path: ConfigPath,
    overrides: Overrides = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join; else RAY_ADDRESS, else a local one.")
    ] = None,
) -> None:
    """Label and embed every image of CONFIG's manifest that its output does not hold yet."""
    summary = show_run(config.load(path, overrides or []), address)
    if summary.stopped:
        raise typer.Exit(STOPPED)


def show_run(settings: RunConfig, address: str | None = None) -> Summary:
    """Run with a progress line, then print the account."""
    with console.stopping() as stop, console.progress_line() as on_progress:
        summary = run(settings, address=address, stop=stop, on_progress=on_progress)
    if summary.run_id is None:
        console.say("Nothing to do: every row of the manifest is accounted for. Nothing was committed.")
    console.show_account(summary.account)
    if summary.run_id is not None:
        word = "stopped" if summary.stopped else "finished"
        console.say(
            f"{word} in {summary.seconds:,.1f} s, {summary.images_per_s:,.1f} images/s, "
            f"engine {summary.engine}, run {summary.run_id}"
        )
    console.say(f"output: {summary.output}")
    return summary
