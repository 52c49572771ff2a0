"""Endpoint, region and credentials of S3, as botocore finds them, for every client.

s3fs uses botocore itself. delta-rs and obstore use the Rust crate object_store, which knows neither profiles nor
roles. This module opens no store and writes no secret.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import botocore.config
import botocore.credentials
import botocore.exceptions
import botocore.session

from pipeline.config import StorageConfig
from pipeline.errors import StorageError, first_line
from pipeline.storage import certificates

RETRIES = {"total_max_attempts": 4, "mode": "standard"}
"""botocore's retry policy for each request: exponential backoff with jitter, a few seconds in all."""
ONCE = {"total_max_attempts": 1, "mode": "standard"}
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0

_FINDING = threading.Lock()
"""Lets one thread of a fetcher look up the settings; the others then use its result."""


def endpoint_and_region(config: StorageConfig) -> tuple[str, str]:
    """Return endpoint and region: the config's, otherwise those that botocore finds. Raises: StorageError."""
    environment = tuple((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    with _FINDING, _settings_named():
        endpoint, region = _found(config.region, environment)
    return config.endpoint_url or endpoint, region


def credentials(config: StorageConfig) -> botocore.credentials.Credentials | None:
    """Return the credentials that botocore finds, which renew themselves; None if there are none, or for anonymous
    access. Raises: StorageError."""
    if config.anonymous:
        return None
    with _settings_named():
        return botocore.session.get_session().get_credentials()


def s3fs_options(config: StorageConfig, *, patient: bool) -> dict[str, Any]:
    """Return options for `s3fs.S3FileSystem`, which finds the credentials itself. Raises: StorageError."""
    return {
        "anon": config.anonymous,
        "endpoint_url": _unusual(*endpoint_and_region(config)),
        "client_kwargs": {"region_name": config.region} if config.region else {},
        "config_kwargs": {
            "retries": RETRIES if patient else ONCE,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "max_pool_connections": 64,
        },
        "use_listings_cache": False,
    }


def delta_options(config: StorageConfig) -> dict[str, str]:
    """Return options for delta-rs, with the current credentials. Raises: StorageError."""
    certificates.trust(_bundle())
    endpoint, region = endpoint_and_region(config)
    found = credentials(config)
    with _settings_named():
        frozen = found.get_frozen_credentials() if found else None
    options = {
        **_endpoints(_unusual(endpoint, region)),
        "AWS_REGION": region,
        "AWS_SKIP_SIGNATURE": "true" if config.anonymous else None,
        "AWS_ACCESS_KEY_ID": frozen.access_key if frozen else None,
        "AWS_SECRET_ACCESS_KEY": frozen.secret_key if frozen else None,
        "AWS_SESSION_TOKEN": frozen.token if frozen else None,
    }
    return {key: value for key, value in options.items() if value}


def obstore_options(config: StorageConfig) -> dict[str, str]:
    """Return options for `obstore.store.S3Store`, without credentials. Raises: StorageError.

    Defaults are written out: otherwise obstore takes them from variables that mean nothing to botocore.
    """
    certificates.trust(_bundle())
    endpoint, region = endpoint_and_region(config)
    return {
        **_endpoints(endpoint),
        "AWS_REGION": region,
        "AWS_SKIP_SIGNATURE": "true" if config.anonymous else "false",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        "AWS_S3_EXPRESS": "false",
    }


def _endpoints(endpoint: str | None) -> dict[str, str]:
    """Name the endpoint under both keys: otherwise the second, if the environment has it, wins."""
    if endpoint is None:
        return {}
    plain = {"AWS_ALLOW_HTTP": "true"} if endpoint.startswith("http://") else {}
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_ENDPOINT_URL_S3": endpoint, **plain}


def _unusual(endpoint: str, region: str) -> str | None:
    """Return the endpoint; None for the default one of the region, which clients find themselves."""
    return None if endpoint == f"https://s3.{region}.amazonaws.com" else endpoint


def _bundle() -> str | None:
    """Return the certificate file of AWS_CA_BUNDLE or the profile; None if there is none, or if it is a folder."""
    with _settings_named():
        found = botocore.session.get_session().get_config_variable("ca_bundle")
    return str(found) if found and not os.path.isdir(found) else None


@contextmanager
def _settings_named() -> Iterator[None]:
    """Raises: StorageError for settings and credentials that botocore cannot use."""
    try:
        yield
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise StorageError(
            f"Cannot use the AWS settings of the environment: {first_line(error)}. Check the AWS variables and "
            "~/.aws/config."
        ) from error


@cache
def _found(region: str | None, environment: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    """Return endpoint and region as botocore finds them. Cached, since it takes 0.1 s."""
    session = botocore.session.get_session()
    # AWS_REGION is what AWS's own services set and all other clients take; botocore takes AWS_DEFAULT_REGION.
    region = region or session.get_config_variable("region") or os.environ.get("AWS_REGION") or "us-east-1"
    regional = botocore.config.Config(s3={"us_east_1_regional_endpoint": "regional"})
    return session.create_client("s3", region_name=region, config=regional).meta.endpoint_url, region
