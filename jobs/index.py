"""`lakelens index`: an index of an output's embeddings, kept fresh."""

import dataclasses
import json
from typing import Annotated

import typer

from jobs import console, options
from jobs.options import Anonymous, EndpointUrl, Output, Region
from pipeline.search.index_update import IndexReport, update


def main(
    output: Output,
    columns: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Columns to keep in addition to the usual ones, such as kept columns."),
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Write all rows and indexes anew.")] = False,
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster that makes large changes. Default: RAY_ADDRESS, otherwise this process."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Bring the index of OUTPUT up to date: apply what has changed since, or build it from all rows.

    Readers see the old or the new index, even if this command is killed. From 20,000 rows on, the index is
    approximate, and its recall is measured. A Ray cluster, if there is one, makes large changes.
    """
    names = None if columns is None else [name.strip() for name in columns.split(",") if name.strip()]
    storage = options.storage(endpoint_url, region, anonymous)
    report = update(output, storage, columns=names, rebuild=rebuild, address=address)
    if as_json:
        console.passed_on(json.dumps(dataclasses.asdict(report)) + "\n")
        return
    for line in _lines(report):
        console.say(line)


def _lines(report: IndexReport) -> list[str]:
    why = [f"All rows were indexed anew: {report.anew.rstrip('.')}."] if report.anew else []
    rows = f"{report.rows:,} rows, as of version {report.version} of the predictions"
    counts = f"{report.upserts:,} upserts, {report.deletes:,} deletes"
    cost = f"{report.written / 1e6:,.1f} MB written in {report.seconds:.1f} s"
    found = (
        f"recall@10 {report.recall:.3f}, measured with {report.measured} queries that look into {report.nprobes} "
        f"partitions and compare {report.refine} candidates for each hit"
        if report.approximate
        else "exact: searches compare the query with every row"
    )
    return [*why, f"{rows}: {counts}, {cost}", found]
