"""`lakelens verify`: is what an output holds what its model says?"""

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
    sample: Annotated[int, typer.Option(min=1, help="Rows that are computed again.")] = 200,
    seed: Annotated[int, typer.Option(help="Another one draws other rows.")] = 0,
    min_cosine: Annotated[float, typer.Option(help="Mean cosine that each dataset needs.")] = Limits.cosine_mean,
    min_top1: Annotated[
        float, typer.Option(help="Share of equal best labels that each dataset needs.")
    ] = Limits.top1,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Compute a sample of OUTPUT's rows again by plain transformers in float32, and compare vectors and labels, by
    dataset. Exits with 5 if one falls short."""
    storage = options.storage(endpoint_url, region, anonymous)
    found = verify(output, storage, sample=sample, seed=seed)
    console.show_table(("dataset", *FIGURES), map(_cells, found.agreements), figures=FIGURES)
    console.say(
        f"against {found.model} in float32; {found.changed} images have changed since, {found.gone} are gone"
    )
    if found.written_out:
        console.say(
            f"{found.written_out} rows are of data: URIs, of which the output keeps a hash; none was drawn"
        )
    limits = Limits(min_cosine, min_top1)
    short = [(one.dataset or "all", missed) for one in found.agreements if (missed := limits.shortfall(one))]
    if short:
        raise AgreementError(f"{output} is not what its model gives: in {short[0][0]}, {short[0][1]}.")


def _cells(one: Agreement) -> tuple[str, ...]:
    figures = (f"{figure:.5f}" for figure in (one.cosine_mean, one.cosine_min, one.top1, one.top5))
    return one.dataset or "all", f"{one.images:,}", *figures
