"""`lakelens status`: list the runs that were submitted to a cluster."""

from typing import Annotated

import typer

from jobs import console
from jobs.options import CaFile, Dashboard
from pipeline.cluster.submission import Job, Submissions


def main(
    address: Dashboard,
    job_id: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="Only this job, with its last message.")
    ] = None,
    ca_file: CaFile = None,
) -> None:
    """List the submitted runs that the Ray cluster still knows, the newest first."""
    submissions = Submissions(address, ca_file)
    jobs = submissions.all() if job_id is None else [submissions.find(job_id)]
    if not jobs:
        console.say("There are no submitted jobs.")
        return
    header = ("job", "status", "exit code", "started", "minutes", "output")
    console.show_table(header, map(_row, jobs), figures=("exit code", "minutes"))
    if job_id is not None and jobs[0].message:
        console.say(jobs[0].message)


def _row(job: Job) -> tuple[str, ...]:
    started = f"{job.started_at:%Y-%m-%d %H:%M:%S}" if job.started_at else ""
    took = f"{(job.ended_at - job.started_at).total_seconds() / 60:.1f}" if job.started_at and job.ended_at else ""
    code = "" if job.exit_code is None else str(job.exit_code)
    return job.id, job.status.lower(), code, started, took, job.output
