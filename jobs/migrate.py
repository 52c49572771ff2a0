"""`lakelens migrate`: what moving to another model takes, and what changes."""

from typing import Annotated

import typer

from jobs import console, options
from jobs.options import Anonymous, EndpointUrl, Overrides, Region
from pipeline import config, migration
from pipeline.config import RunConfig
from pipeline.migration import DatasetComparison
from pipeline.planning.preview import plan_config
from pipeline.storage.filesystems import Storage

FIGURES = ("images", "neighbours", "labels")


def main(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The output of the present model.")],
    path: Annotated[str, typer.Argument(metavar="NEW-CONFIG", help="Config of a run with the new model.")],
    only_plan: Annotated[bool, typer.Option("--plan", help="Show what filling the new output takes.")] = False,
    price: Annotated[
        float | None, typer.Option(min=0, help="With --plan: price of an hour of the cluster.")
    ] = None,
    sample: Annotated[int, typer.Option(min=2, max=20_000, help="Images to compare, by dataset.")] = 2000,
    overrides: Overrides = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Compare the output OLD with that of NEW-CONFIG on a sample: do labels and neighbours agree?

    With --plan, show which rows are left to process, how long that takes and what it costs.
    """
    storage = options.storage(endpoint_url, region, anonymous)
    settings = config.load(path, overrides or [])
    if only_plan:
        return _show_plan(old, settings, storage, price)
    found = migration.compare(old, plan_config(settings).output, storage, sample=sample)
    console.show_table(("dataset", *FIGURES), map(_cells, found), figures=FIGURES)
    console.say(f"neighbours: share of the {migration.NEIGHBOURS} nearest images that are the same in both spaces")


def _show_plan(old: str, settings: RunConfig, storage: Storage, price: float | None) -> None:
    found = migration.plan(old, settings, storage)
    console.show_account(found.preview.account, always=("input", "already_done", "left"), left="pending")
    console.say(f"{old} has {found.old_rows:,} embedded images")
    if found.seconds is None or found.measured is None:
        return console.say("No run has measured a rate yet: run with --limit first.")
    hours, of = found.seconds / 3600, "this model" if found.own_rate else f"the old model, {found.measured.model}"
    cost = "" if price is None else f", {hours * price:,.2f} at {price:g} an hour"
    console.say(f"{hours:,.2f} hours{cost}, at {found.measured.images_per_s:,.1f} images/s, measured with {of}")
    console.say(f"output: {found.preview.output}")


def _cells(one: DatasetComparison) -> tuple[str, ...]:
    labels = "-" if one.labels is None else f"{one.labels:.1%}"
    return one.dataset or "all", f"{one.images:,}", f"{one.overlap:.1%}", labels
