"""`lakelens manifest`: make a manifest from a folder or a prefix."""

from typing import Annotated

import typer

from jobs import console
from jobs.options import Anonymous, EndpointUrl
from pipeline.config import StorageConfig
from pipeline.errors import ConfigError
from pipeline.listing import IMAGE_SUFFIXES, write_listing
from pipeline.manifest import FORMATS
from pipeline.storage import Storage


def main(
    prefix: Annotated[
        str, typer.Argument(metavar="PATH_OR_PREFIX", help="A folder, an s3:// prefix, or a .tar shard.")
    ],
    out: Annotated[str, typer.Option("--out", help="The Parquet manifest to write, on any store.")],
    dataset: Annotated[str, typer.Option(help="Dataset of images that --dataset-from gives none.")] = "images",
    dataset_from: Annotated[
        int | None,
        typer.Option(
            help="Path component below the prefix that names the dataset: 0 the first folder, -1 the last."
        ),
    ] = None,
    suffix: Annotated[
        list[str] | None,
        typer.Option(help="Take files that end in this, not those of image formats; repeatable."),
    ] = None,
    endpoint_url: EndpointUrl = None,
    anonymous: Anonymous = False,
) -> None:
    """List the images below PATH_OR_PREFIX, and the members of tar shards, into a manifest."""
    if not out.lower().endswith(FORMATS["parquet"]):
        raise ConfigError(f"--out {out} must end in .parquet.")
    storage = Storage(StorageConfig(endpoint_url=endpoint_url, anonymous=anonymous))
    rows = write_listing(
        prefix,
        out,
        storage,
        dataset=dataset,
        dataset_from=dataset_from,
        suffixes=suffix or IMAGE_SUFFIXES,
    )
    console.say(f"{rows:,} images listed in {out}")
