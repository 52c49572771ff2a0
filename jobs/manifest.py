"""`lakelens manifest`: make a manifest from folders or prefixes."""

from typing import Annotated

import typer

from jobs import console, options
from jobs.options import Anonymous, EndpointUrl, Region
from pipeline.errors import ConfigError
from pipeline.planning.listing import EVERY_SUFFIX, IMAGE_SUFFIXES, write_listing
from pipeline.planning.listing_report import Listing
from pipeline.planning.manifest import FORMATS


def main(
    prefixes: Annotated[
        list[str],
        typer.Argument(metavar="PATH_OR_PREFIX", help="A folder, an s3:// prefix, or a .tar shard."),
    ],
    out: Annotated[str, typer.Option("--out", help="The Parquet manifest to write, on any store.")],
    dataset: Annotated[str, typer.Option(help="Dataset of images where --dataset-from finds none.")] = "images",
    dataset_from: Annotated[
        int | None,
        typer.Option(
            help="Path component below the prefix that names the dataset: 0 the first folder, -1 the last."
        ),
    ] = None,
    suffix: Annotated[
        list[str] | None,
        typer.Option(help="List files with this ending instead of those of images; repeatable."),
    ] = None,
    all_files: Annotated[
        bool, typer.Option("--all-files", help="List files with any ending, except hidden ones.")
    ] = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """List the images below each PATH_OR_PREFIX, and the members of tar shards, into a manifest."""
    if all_files and suffix:
        raise ConfigError("--all-files and --suffix exclude each other; give only one.")
    if not out.lower().endswith(FORMATS["parquet"]):
        raise ConfigError(f"--out {out} must end in .parquet.")
    storage = options.storage(endpoint_url, region, anonymous)
    listing = write_listing(
        prefixes,
        out,
        storage,
        dataset=dataset,
        dataset_from=dataset_from,
        suffixes=EVERY_SUFFIX if all_files else suffix or IMAGE_SUFFIXES,
    )
    _show(listing, out)


def _show(listing: Listing, out: str) -> None:
    for line in listing.unlisted_lines:
        console.note(line)
    console.say("; ".join(filter(None, [f"{listing.rows_line} in {out}", listing.left_out_line])))
    console.exit_if_any(listing.unlisted)
