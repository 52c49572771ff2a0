"""`lakelens verify`: does an output hold what its model computes?"""

from typing import Annotated

import typer

from jobs import console, options
from jobs.options import Anonymous, EndpointUrl, Output, Region
from pipeline.errors import AgreementError
from pipeline.models.comparison import Agreement, Limits
from pipeline.verify import verify

FIGURES = ("images", "cosine", "least", "top-1", "top-5")


def main(
    output: Output,
    sample: Annotated[int, typer.Option(min=1, help="Number of rows to compute again.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    min_cosine: Annotated[float, typer.Option(help="Mean cosine that each dataset needs.")] = Limits.cosine_mean,
    min_top1: Annotated[
        float, typer.Option(help="Share of equal best labels that each dataset needs.")
    ] = Limits.top1,
    head: Annotated[
        str | None, typer.Option(metavar="HEAD", help="Compare the labels of this head, a folder, instead.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of its labels. Default: that of the folder.")] = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Compute a sample of OUTPUT's rows again with plain transformers in float32, and compare vectors and labels
    by dataset. Exits with 5 if a dataset falls short."""
    storage = options.storage(endpoint_url, region, anonymous)
    found = verify(output, storage, sample=sample, seed=seed, head=head, name=name)
    console.show_table(("dataset", *FIGURES), map(_cells, found.agreements), figures=FIGURES)
    console.say(
        f"compared with {found.model} in float32; {found.changed} images have changed since, {found.gone} are gone"
    )
    if found.written_out:
        console.say(
            f"{found.written_out} rows come from data: URIs and were not sampled: the output keeps only their hash"
        )
    limits = Limits(min_cosine, min_top1)
    short = [(one.dataset or "all", missed) for one in found.agreements if (missed := limits.shortfall(one))]
    if short:
        raise AgreementError(f"{output} does not hold what its model computes: in {short[0][0]}, {short[0][1]}.")


def _cells(one: Agreement) -> tuple[str, ...]:
    values = (one.cosine_mean, one.cosine_min, one.top1, one.top5)
    figures = ("-" if value is None else f"{value:.5f}" for value in values)
    return one.dataset or "all", f"{one.images:,}", *figures
