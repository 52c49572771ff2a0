"""`lakelens history`: the runs and commits that made an output."""

from typing import Annotated

import typer

from jobs import console, options
from jobs.options import Anonymous, EndpointUrl, Output, Region
from pipeline.output import label_table, maintenance
from pipeline.output.label_table import LabelCommit

FIGURES = ("version", "rows", "failed")


def main(
    output: Output,
    limit: Annotated[int, typer.Option(min=1, help="Number of commits to show, the newest first.")] = 50,
    head: Annotated[str | None, typer.Option(help="List the relabellings with this head instead.")] = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """List the commits of OUTPUT: when, who, and how many rows they added."""
    storage = options.storage(endpoint_url, region, anonymous)
    if head is not None:
        _show_relabellings(label_table.existing(output, head, storage).history()[:limit])
        return
    found = maintenance.history(output, storage)
    rows = [
        (str(one.version), f"{one.at:%Y-%m-%d %H:%M:%S}", one.what, one.by, _count(one.rows), _count(one.failed))
        for one in found[:limit]
    ]
    console.show_table(("version", "at (UTC)", "what", "who", "rows", "failed"), rows, figures=FIGURES)
    fingerprints = sorted({one.fingerprint for one in found if one.fingerprint})
    console.say(f"fingerprint of the space: {', '.join(fingerprints) or 'no longer in the log'}")


def _show_relabellings(found: list[LabelCommit]) -> None:
    rows = [
        (str(one.version), f"{one.at:%Y-%m-%d %H:%M:%S}", ", ".join(map(str, one.sources)), ", ".join(one.heads))
        for one in found
    ]
    console.show_table(("version", "at (UTC)", "of predictions", "head"), rows, figures=("version",))


def _count(rows: int | None) -> str:
    return "" if rows is None else f"{rows:,}"
