"""`lakelens vacuum`: delete files that no reader sees."""

from typing import Annotated

import typer

from jobs import console, options
from jobs.options import Anonymous, EndpointUrl, Output, Region
from pipeline.output import maintenance


def main(
    output: Output,
    older_than_days: Annotated[
        float, typer.Option(min=0, help="Delete files of unfinished compactions that are older than this.")
    ] = maintenance.STRAY_DAYS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the files, delete nothing.")] = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Delete files of OUTPUT that its table does not name, plans of ended runs, and expired entries of its log.

    Safe beside a running job, whose files stay. Afterwards, older versions of the table cannot be read.
    """
    storage = options.storage(endpoint_url, region, anonymous)
    found = maintenance.vacuum(output, storage, older_than_days=older_than_days, dry_run=dry_run)
    word = "would be deleted" if dry_run else "deleted"
    console.say(f"{found.files:,} files ({found.size / 1e6:,.1f} MB) and {found.plans:,} plan files {word}")
