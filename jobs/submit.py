"""`lakelens submit`: a run as a job of a Ray cluster."""

from typing import Annotated

import typer

from jobs import console
from jobs.options import CaFile, ConfigPath, Dashboard, LogFormat, Overrides, Required, TakeOver
from pipeline import config
from pipeline.cluster import runtime_environment
from pipeline.cluster.submission import Submissions

INTERRUPTED = 130


def main(
    path: ConfigPath,
    address: Dashboard,
    overrides: Overrides = None,
    required: Required = None,
    take_over: TakeOver = False,
    log_format: LogFormat = None,
    runtime_env: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="YAML: a Ray runtime environment for the job (pip, env_vars, ...)."),
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Python on the cluster that runs the job. Default: that on the PATH."),
    ] = None,
    ca_file: CaFile = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show its log, and exit with its exit code.")] = False,
) -> None:
    """Submit `lakelens run CONFIG` to the Ray cluster whose dashboard is at --address.

    LakeLens itself goes with it; what it needs is in the cluster's image. A run that was submitted and has not
    ended is not submitted again; one that has ended is, and goes on where it was.
    """
    settings = config.load(path, overrides or [])
    environment = runtime_environment.read(runtime_env) if runtime_env else None
    options = [word for name in required or () for word in ("--require", name)] + ["--take-over"] * take_over
    options += ["--log-format", log_format] if log_format else []
    submissions = Submissions(address, ca_file)
    job_id = submissions.submit(settings, options, environment, python)
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
