"""`lakelens export`: labels and vectors as files for other programs."""

from functools import partial
from typing import Annotated

import typer

from jobs import console, options
from jobs.options import Anonymous, Datasets, EndpointUrl, Output, Region, RowsWhere
from pipeline import open_space
from pipeline.export.request import ROWS_PER_FILE, Format, Importer

Columns = Annotated[
    str | None, typer.Option(metavar="A,B", help="Columns instead of the usual ones. image_id is always written.")
]
Since = Annotated[
    str | None,
    typer.Option(metavar="VERSION|FOLDER", help="Only upserts and deletes since this version or earlier export."),
]
Address = Annotated[
    str | None, typer.Option(help="Ray cluster that writes the files. Default: RAY_ADDRESS for 1 GiB or more.")
]


def main(
    output: Output,
    out: Annotated[str, typer.Option("--out", metavar="FOLDER", help="A new or empty folder, on any store.")],
    to: Annotated[Format, typer.Option("--to", help="What the files are.")] = Format.PARQUET,
    importer: Annotated[
        Importer | None, typer.Option("--for", help="Parquet as the importer of this vector database takes it.")
    ] = None,
    since: Since = None,
    where: RowsWhere = None,
    columns: Columns = None,
    dataset: Datasets = None,
    outcome: Annotated[str, typer.Option(metavar="ok|failed", help="Rows with this outcome.")] = "ok",
    rows_per_file: Annotated[int, typer.Option(min=1, help="Rows of one file.")] = ROWS_PER_FILE,
    address: Address = None,
    json: Annotated[bool, typer.Option("--json", help="Print what export.json says.")] = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Write the ok rows of OUTPUT with their vectors to FOLDER. Its export.json, written last, has the version."""
    made = open_space(output, options.storage(endpoint_url, region, anonymous).config).export(
        out,
        to=to,
        importer=importer,
        columns=[name.strip() for name in columns.split(",")] if columns else None,
        datasets=dataset or (),
        outcome=outcome,
        where=where,
        since=int(since) if since and since.isdecimal() else since,
        rows_per_file=rows_per_file,
        address=address,
        on_progress=partial(console.show_progress, what="rows"),
    )
    console.passed_on((made.model_dump_json(indent=2) if json else made.sentence(out)) + "\n")
