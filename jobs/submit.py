"""`lakelens submit`: start a run as a job of a Ray cluster."""

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
        typer.Option(metavar="PATH", help="The cluster's Python that runs the job. Default: the one on its PATH."),
    ] = None,
    ca_file: CaFile = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the job's log, and exit with its exit code.")] = False,
) -> None:
    """Submit `lakelens run CONFIG` to the Ray cluster whose dashboard is at --address.

    LakeLens itself is sent along. Its dependencies must be in the cluster's image. A run that has not ended is not
    submitted again. One that has ended is, and continues where it stopped.
    """
    settings = config.load(path, overrides or [])
    environment = runtime_environment.read(runtime_env) if runtime_env else None
    options = [word for name in required or () for word in ("--require", name)] + ["--take-over"] * take_over
    options += ["--log-format", log_format] if log_format else []
    submissions = Submissions(address, ca_file)
    job_id = submissions.submit(settings, options, environment, python)
    console.say(f"job {job_id}")
    if wait:
        raise typer.Exit(_followed(submissions, job_id))
    console.note(f"Watch it: lakelens status {job_id} --address {address}")


def _followed(submissions: Submissions, job_id: str) -> int:
    """Return the job's exit code. On Ctrl-C, ask whether to stop the job."""
    try:
        return submissions.follow(job_id, console.passed_on)
    except KeyboardInterrupt:
        if console.err.is_terminal and typer.confirm("\nStop the job as well?", err=True):
            submissions.stop(job_id)
            return submissions.follow(job_id, lambda text: None)
        console.note(f"Job {job_id} continues.")
        return INTERRUPTED
