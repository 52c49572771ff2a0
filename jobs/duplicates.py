"""`lakelens duplicates`: which images are the same picture, and what share of the lake they are."""

import json
from functools import partial
from typing import Annotated

import typer

from jobs import console, options
from jobs.options import Anonymous, EndpointUrl, Output, Region
from pipeline.duplicates import finding
from pipeline.duplicates.finding import DISTANCE, FARTHEST
from pipeline.output.reader import PredictionsReader
from pipeline.storage.uris import absolute

Address = Annotated[
    str | None, typer.Option(help="Ray cluster that compares. Default: RAY_ADDRESS for 2 million rows or more.")
]


def main(
    output: Output,
    distance: Annotated[
        float,
        typer.Option(min=0, max=FARTHEST, help="Cosine distance up to which two images are near duplicates."),
    ] = DISTANCE,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="Parquet file. Default: OUTPUT/duplicates.parquet."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="FILE", help="Also write a Parquet manifest of the images that stay."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    address: Address = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Group the ok images of OUTPUT that have the same bytes or a near vector, and tell which of them to keep."""
    found = finding.find(
        PredictionsReader.open(absolute(output), options.storage(endpoint_url, region, anonymous)),
        out,
        distance=distance,
        keep=keep,
        address=address,
        on_progress=partial(console.show_progress, what="rows"),
    )
    if as_json:
        console.passed_on(json.dumps(found.described(), indent=2, ensure_ascii=False) + "\n")
        return
    header = ["dataset", "images", "same bytes", "near", "share"]
    shares = [*found.datasets, found.total] if len(found.datasets) != 1 else found.datasets
    cells = [
        [one.dataset, f"{one.images:,}", f"{one.exact:,}", f"{one.near:,}", f"{one.part:.1%}"] for one in shares
    ]
    console.show_table(header, cells, figures=header[1:])
    console.say(found.sentence)
