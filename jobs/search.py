"""`lakelens search`: the images nearest to a query."""

import json
from typing import Annotated, Any

import typer

from jobs import console, options
from jobs.options import Anonymous, Datasets, EndpointUrl, Output, Region, RowsWhere
from pipeline.face.opened_space import open_space
from pipeline.search import vectors
from pipeline.storage.uris import redacted

HEADER = ("distance", "label", "score", "dataset", "image_id", "uri")


def main(
    output: Output,
    image: Annotated[str | None, typer.Option(help="Query: the path or URI of an image.")] = None,
    image_id: Annotated[str | None, typer.Option("--id", help="Query: a row's image_id. It is no hit.")] = None,
    text: Annotated[str | None, typer.Option(help="Query: words, if the model has a text encoder.")] = None,
    vector: Annotated[str | None, typer.Option(help="Query: a vector, a .npy or JSON file; - is stdin.")] = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Number of hits.")] = 10,
    model: Annotated[str | None, typer.Option(help="Where the model is now, if it has moved.")] = None,
    where: RowsWhere = None,
    dataset: Datasets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of the hits.")] = False,
    html: Annotated[str | None, typer.Option(help="Write a page of the hits, with thumbnails.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare every row, and use no index.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Shorten nothing to fit the terminal.")] = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Find the images of OUTPUT nearest to one query: those with the lowest cosine distance, 1 − cos.

    An image goes through the model that made OUTPUT, on this machine's CPU. --id and --vector need no model.
    """
    storage = options.storage(endpoint_url, region, anonymous)
    space = open_space(output, storage.config, model=model)
    query: dict[str, Any] = {"image": image, "image_id": image_id, "text": text}
    query["vector"] = None if vector is None else vectors.read(vector, storage)
    hits = space.search(**query, k=k, where=where, datasets=dataset or (), exactly=exact)
    console.note(hits.searched)
    if html is not None:
        storage.write(html, space.gallery(hits).encode())
    if as_json:
        console.say(json.dumps(hits.to_dicts(), indent=2, ensure_ascii=False))
    elif hits:
        rows = [_cells(row, full) for row in hits.to_dicts()]
        console.show_table(HEADER, rows, HEADER[:3:2], () if full else (HEADER[1], *HEADER[3:]))
    else:
        console.say("No row meets the condition.")


def _cells(row: dict[str, Any], full: bool) -> tuple[str, ...]:
    score = "-" if row["score"] is None else f"{row['score']:.2f}"
    ids = (row[name] if full else redacted(row[name]) for name in ("image_id", "uri"))
    return f"{row['distance']:.4f}", row["label"] or "-", score, row["dataset"], *ids
