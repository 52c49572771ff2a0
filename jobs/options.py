"""Options that commands share."""

import os
from typing import Annotated

import typer

from jobs import logs
from pipeline.config import StorageConfig
from pipeline.errors import ConfigError, ErrorCode
from pipeline.planning.selection import Selection
from pipeline.storage.filesystems import Storage

ConfigPath = Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file; see configs/.")]
Output = Annotated[str, typer.Argument(metavar="OUTPUT", help="An output.path, with its {space} filled in.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in --set labels.top_k=3; repeatable."),
]
Address = Annotated[
    str | None, typer.Option(help="Ray cluster to join. Default: RAY_ADDRESS, then a new local cluster.")
]
Dashboard = Annotated[
    str,
    typer.Option(
        "--address",
        envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
        help="The cluster's dashboard, as in http://head:8265.",
    ),
]
CaFile = Annotated[
    str | None,
    typer.Option(
        "--ca-file",
        metavar="PATH",
        help="Certificates to trust for https. Default: REQUESTS_CA_BUNDLE, SSL_CERT_FILE, then the system's.",
    ),
]
Required = Annotated[
    list[str] | None,
    typer.Option(
        "--require",
        metavar="NAME",
        help="Environment variable that must be set on the node that runs the job; repeatable.",
    ),
]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Take over the output from a run that is still writing it.")
]


def _log_format(chosen: str | None) -> str | None:
    if chosen is not None and chosen not in logs.FORMATS:
        raise typer.BadParameter(f"use one of {', '.join(logs.FORMATS)}")
    if chosen is not None:
        os.environ[logs.VARIABLE] = chosen
    return chosen


LogFormat = Annotated[
    str | None,
    typer.Option(
        metavar="text|json",
        callback=_log_format,
        help=f"Format of the progress on stderr. Default: ${logs.VARIABLE}, then text.",
    ),
]
EndpointUrl = Annotated[
    str | None, typer.Option(help="S3 endpoint. Default: that of the AWS variables or profile.")
]
Region = Annotated[
    str | None,
    typer.Option(help="Region of S3. Default: that of the AWS variables or profile, then us-east-1."),
]
Anonymous = Annotated[bool, typer.Option("--anonymous", help="Read a public bucket without credentials.")]
Failed = Annotated[bool, typer.Option("--failed", help="Retry failed rows, and process no others.")]
Codes = Annotated[
    list[str] | None, typer.Option("--code", help="With --failed: only rows with this error code; repeatable.")
]
Datasets = Annotated[list[str] | None, typer.Option("--dataset", help="Only this dataset; repeatable.")]
Where = Annotated[
    str | None,
    typer.Option(metavar="SQL", help='Only rows whose manifest columns meet this condition, as in "year > 2020".'),
]
RowsWhere = Annotated[
    str | None,
    typer.Option("--where", metavar="SQL", help='Only rows that meet this condition, as in "score > 0.5".'),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Process at most this many rows.")]


def require_variables(names: list[str] | None) -> None:
    """Require that environment variables are set on this machine. Raises: ConfigError."""
    missing = [name for name in names or () if not os.environ.get(name)]
    if missing:
        raise ConfigError(f"The environment variable {missing[0]} is not set on this node; set it there.")


def selection(
    failed: bool, codes: list[str] | None, datasets: list[str] | None, where: str | None, limit: int | None
) -> Selection:
    """Return the rows that the options select. Raises: ConfigError."""
    if codes and not failed:
        raise ConfigError("--code selects failed rows by error code; add --failed.")
    unknown = [one for one in codes or () if one not in set(ErrorCode)]
    if unknown:
        raise ConfigError(f"--code {unknown[0]} is not an error code; use one of {', '.join(ErrorCode)}.")
    return Selection(failed, tuple(codes or ()), tuple(datasets or ()), where, limit)


def storage(endpoint_url: str | None, region: str | None, anonymous: bool) -> Storage:
    """Return the stores that the options describe; credentials come from the environment."""
    return Storage(StorageConfig(endpoint_url=endpoint_url, region=region, anonymous=anonymous))
