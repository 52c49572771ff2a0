"""Where an S3 store is, and with which credentials it is opened: as botocore finds them, for every client.

s3fs is on botocore itself; delta-rs and obstore, on the Rust crate object_store, know neither profiles nor roles.
Nothing here opens a store, or writes a secret anywhere.
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
"""A fetcher's threads all want to know at once, and one of them is to find out."""


def place(config: StorageConfig) -> tuple[str, str]:
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
    """For `s3fs.S3FileSystem`, which finds the credentials itself."""
    return {
        "anon": config.anonymous,
        "endpoint_url": _unusual(*place(config)),
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
    """For delta-rs, with the credentials of this moment. Raises: StorageError."""
    certificates.trust(_bundle())
    endpoint, region = place(config)
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
    """For `obstore.store.S3Store`, without credentials.

    Also what is as usual: else obstore takes it from variables that mean nothing to botocore. Raises: StorageError
    for lost certificates.
    """
    certificates.trust(_bundle())
    endpoint, region = place(config)
    return {
        **_endpoints(endpoint),
        "AWS_REGION": region,
        "AWS_SKIP_SIGNATURE": "true" if config.anonymous else "false",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        "AWS_S3_EXPRESS": "false",
    }


def _endpoints(endpoint: str | None) -> dict[str, str]:
    """Under both names: else the second, where the environment has it, comes first."""
    if endpoint is None:
        return {}
    plain = {"AWS_ALLOW_HTTP": "true"} if endpoint.startswith("http://") else {}
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_ENDPOINT_URL_S3": endpoint, **plain}


def _unusual(endpoint: str, region: str) -> str | None:
    """The endpoint, unless it is that of the region, which clients find themselves."""
    return None if endpoint == f"https://s3.{region}.amazonaws.com" else endpoint


def _bundle() -> str | None:
    """A file of certificates: AWS_CA_BUNDLE, else the profile's; None if there is none, or a folder of them."""
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
    """What botocore makes of the environment; kept, since it takes a tenth of a second."""
    session = botocore.session.get_session()
    # AWS_REGION is what AWS's own services set and all other clients take; botocore takes AWS_DEFAULT_REGION.
    region = region or session.get_config_variable("region") or os.environ.get("AWS_REGION") or "us-east-1"
    regional = botocore.config.Config(s3={"us_east_1_regional_endpoint": "regional"})
    return session.create_client("s3", region_name=region, config=regional).meta.endpoint_url, region
