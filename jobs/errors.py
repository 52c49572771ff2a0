"""`lakelens errors`: what failed, where, and why."""

from typing import Annotated

import typer

from jobs import console, options
from jobs.options import Anonymous, EndpointUrl, Output, Region
from pipeline.output import failed_rows
from pipeline.storage.uris import redacted


def main(
    output: Output,
    export: Annotated[
        str | None, typer.Option(help="Write the failed rows to this .parquet or .csv file, on any store.")
    ] = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Count the failed rows of OUTPUT by dataset, stage and code, with a few examples of each."""
    storage = options.storage(endpoint_url, region, anonymous)
    found = failed_rows.count_failures(output, storage)
    if not found:
        console.say("No rows have failed.")
    else:
        rows = [
            (f.dataset, f"{f.rows:,}", f.stage, f.error_code, "  ".join(map(redacted, f.examples))) for f in found
        ]
        console.show_table(("dataset", "rows", "stage", "code", "examples"), rows, figures=("rows",))
    if export is not None:
        console.say(f"{failed_rows.export(output, export, storage):,} rows written to {export}")
