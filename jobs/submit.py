"""`lakelens submit`: a run as a job of a Ray cluster."""

from typing import Annotated

import typer

from jobs import console
from jobs.options import ConfigPath, Dashboard, Overrides, Required, TakeOver
from pipeline import config
from pipeline.submission import Submissions

INTERRUPTED = 130


def main(
    path: ConfigPath,
    address: Dashboard,
    overrides: Overrides = None,
    required: Required = None,
    take_over: TakeOver = False,
    wait: Annotated[bool, typer.Option("--wait", help="Show its log, and exit with its exit code.")] = False,
) -> None:
    """Submit `lakelens run CONFIG` to the Ray cluster whose dashboard is at --address.

    LakeLens itself goes with it; what it needs is in the cluster's image. A run that was submitted and has not
    ended is not submitted again; one that has ended is, and goes on where it was.
    """
    submissions = Submissions(address)
    options = [word for name in required or () for word in ("--require", name)]
    job_id = submissions.submit(config.load(path, overrides or []), options + ["--take-over"] * take_over)
    console.say(f"job {job_id}")
    if not wait:
        console.note(f"lakelens status {job_id} --address {address} tells how it goes.")
        return
    raise typer.Exit(_followed(submissions, job_id))


def _followed(submissions: Submissions, job_id: str) -> int:
    """Its exit code; Ctrl-C asks whether the job is to stop, too."""
    try:
        return submissions.follow(job_id, console.passed_on)
    except KeyboardInterrupt:
        if console.err.is_terminal and typer.confirm("\nStop the job, too?", err=True):
            submissions.stop(job_id)
            return submissions.follow(job_id, lambda text: None)
        console.note(f"Job {job_id} goes on.")
        return INTERRUPTED
