"""`lakelens relabel`: give every image that is embedded a label of a head, without its pixels."""

import json
from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from jobs import console, options
from jobs.options import Address, Anonymous, Datasets, EndpointUrl, Output, Region
from pipeline.labels import relabelling
from pipeline.labels.relabelling import TOP_K


def main(
    output: Output,
    head: Annotated[str, typer.Option(metavar="HEAD", help="Folder of the head; see `lakelens head`.")],
    name: Annotated[
        str | None,
        typer.Option(help="Name of the labels below OUTPUT/labels. Default: that of HEAD's folder."),
    ] = None,
    dataset: Datasets = None,
    where: Annotated[
        str | None,
        typer.Option(help="Label only rows that meet this SQL condition; others keep their label."),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Labels kept for each image.")] = TOP_K,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    address: Address = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Label the rows of OUTPUT from their stored embeddings. Rows that have a label of this head keep it."""
    found = relabelling.relabel(
        output,
        head,
        options.storage(endpoint_url, region, anonymous),
        name=name,
        datasets=dataset or (),
        where=where,
        top_k=top_k,
        address=address,
        on_progress=partial(console.show_progress, what="files"),
    )
    console.say(json.dumps(asdict(found)) if as_json else found.sentence)
