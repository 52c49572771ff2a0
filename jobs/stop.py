"""`lakelens stop`: stop a submitted run."""

from typing import Annotated

import typer

from jobs import console
from jobs.options import CaFile, Dashboard
from pipeline.cluster.submission import Submissions


def main(
    address: Dashboard,
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as `status` lists it.")],
    ca_file: CaFile = None,
) -> None:
    """Ask a submitted run to commit what it has predicted, and to end."""
    stopped = Submissions(address, ca_file).stop(job_id)
    console.say(f"job {job_id} {'is stopping' if stopped else 'had already ended'}")
