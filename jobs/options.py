"""Options that commands share."""

from typing import Annotated

import typer

ConfigPath = Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file; see configs/.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in --set labels.top_k=3; repeatable."),
]
Address = Annotated[str | None, typer.Option(help="Ray cluster to join; else RAY_ADDRESS, else a local one.")]
EndpointUrl = Annotated[str | None, typer.Option(help="S3 endpoint; else that of the AWS variables or profile.")]
Anonymous = Annotated[bool, typer.Option("--anonymous", help="Read a public bucket without credentials.")]
