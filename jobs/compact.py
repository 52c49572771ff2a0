"""`lakelens compact`: fewer and larger files."""

from typing import Annotated

import typer

from jobs import console, options
from jobs.options import Anonymous, Datasets, EndpointUrl, Output, Region
from pipeline.output import compaction, widening


def main(
    output: Output,
    target_mb: Annotated[int, typer.Option(min=1, help="Target size of a file, in MB.")] = compaction.TARGET_MB,
    dataset: Datasets = None,
    widen: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=TYPE",
            help="Before compacting, give a kept column a wider type in all datasets, such as rating=double; "
            "repeatable.",
        ),
    ] = None,
    keep_replaced: Annotated[
        bool,
        typer.Option(
            "--keep-replaced", help="Keep the replaced files for readers, until the next run or a vacuum."
        ),
    ] = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Rewrite the small files of each dataset of OUTPUT as fewer large ones. Safe beside a running job.

    Readers of the Delta table see the same rows before and after. The replaced files are deleted: a query that is
    reading them fails, and succeeds when repeated. With --keep-replaced they stay, and a plain glob reads rows
    twice. --widen is refused while a run writes the output.
    """
    storage = options.storage(endpoint_url, region, anonymous)
    if widen:
        files = widening.widen(output, storage, widening.parse_assignments(widen), keep_replaced=keep_replaced)
        already = "No files were rewritten: the columns already have these types, or the table is empty."
        console.say(f"Widened {', '.join(widen)}: rewrote {files:,} files." if files else already)
    done = compaction.compact(
        output, storage, target_mb=target_mb, datasets=dataset or (), keep_replaced=keep_replaced
    )
    rows = [(one.dataset, f"{one.files_before:,}", f"{one.files_after:,}") for one in done]
    console.show_table(("dataset", "files before", "after"), rows, figures=("files before", "after"))
