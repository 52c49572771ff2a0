"""Connect to the Jobs API at the address of a cluster's dashboard: headers, certificates, translated errors.

Ray itself authenticates, with its own variables.
"""

import errno
import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from pipeline.cluster import connection, handshake, ray_internals
from pipeline.errors import BusyError, ClusterError, ConfigError, first_line
from pipeline.storage import caches, temporary_folders
from pipeline.storage.uris import redacted

HEADERS = "RAY_JOB_HEADERS"
"""Ray's own variable for headers of every request, as a JSON object."""
CA_FILES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables that name the certificates to trust. Ray's requests read the first two, its log client the last."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of this machine's disk: Ray's client packs a job into a temporary file, and sends that."""


def client(address: str, ca_file: str | None = None) -> JobSubmissionClient:
    """Connect to the dashboard at `address`, a URL. Raises: ClusterError, ConfigError."""
    try:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(
            f"{redacted(address)} is not the address of a dashboard. Give one such as http://host:8265."
        )
    headers, verify = _headers(), _certificates(ca_file)
    if parts.scheme not in getproxies() or proxy_bypass(parts.hostname):
        connection.require_answer(parts.hostname, port, f"the Ray dashboard at {redacted(address)}")
    if "authorization" not in {name.lower() for name in headers or {}}:
        handshake.require_token(f"the Ray dashboard at {redacted(address)}")
    ray_internals.silence_jobs()
    with translated_errors(address):
        return JobSubmissionClient(address, headers=headers, verify=verify)


@contextmanager
def translated_errors(address: str, job_id: str | None = None) -> Iterator[None]:
    """Replace what the client raises with our errors. Raises: BusyError, ClusterError, StorageError."""
    address = redacted(address)
    try:
        yield
    except AuthenticationError as error:
        required = handshake.token_required(f"the Ray dashboard at {address}")
        raise ClusterError(f"{required} Set {HEADERS} for headers that a proxy needs.") from error
    except (RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise temporary_folders.write_error(caches.temporary_files(), error) from error
        raise _translated(error, address, job_id) from error


def _translated(error: Exception, address: str, job_id: str | None) -> ClusterError | BusyError:
    said = str(error)
    if "does not exist" in said or "status code 404" in said:
        if job_id:
            return ClusterError(
                f"The Ray cluster at {address} has no job {job_id}. List its jobs: `lakelens status`."
            )
        return ClusterError(f"The Ray cluster at {address} has no Jobs API. Install ray[default] on its head.")
    if "already exists" in said:
        return BusyError("Another process submitted this run at the same time. See its job: `lakelens status`.")
    if "CERTIFICATE_VERIFY_FAILED" in f"{error.__context__} {said}":
        return ClusterError(
            f"The certificate of the Ray dashboard at {address} is not trusted. Give the certificate file of its "
            f"authority: --ca-file, {CA_FILES[0]} or {CA_FILES[-1]}."
        )
    return ClusterError(f"The Ray cluster at {address} refused the request: {first_line(error)}.")


def _headers() -> dict[str, str] | None:
    """Read the headers from the environment. Raises: ConfigError, without the value, which may be a secret."""
    text = os.environ.get(HEADERS)
    if not text:
        return None
    try:
        headers = json.loads(text)
    except ValueError:
        headers = None
    if not isinstance(headers, dict) or not all(map(_is_sendable, [*headers, *headers.values()])):
        raise ConfigError(
            f'{HEADERS} must be a JSON object of strings, such as {{"X-Name": "value"}}, without blanks or line '
            "breaks around them."
        )
    return headers


def _is_sendable(text: object) -> bool:
    """Tell whether HTTP can carry a text. The HTTP client would show others in its error."""
    if not isinstance(text, str) or not text or text != text.strip() or not text.isprintable():
        return False
    return all(ord(char) < 256 for char in text)


def _certificates(ca_file: str | None) -> str | bool:
    """Return the file or folder of certificates, or True for the system's. Raises: ConfigError."""
    named = [("--ca-file", ca_file), *((name, os.environ.get(name)) for name in CA_FILES)]
    source, path = next(((source, path) for source, path in named if path), ("", None))
    if not path:
        return True
    folder = os.path.isdir(path)
    try:
        ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)
    except OSError as error:  # an SSLError is an OSError, too
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"{source} = {path} cannot be used: {reason}.") from error
    return path
