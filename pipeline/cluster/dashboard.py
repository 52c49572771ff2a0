"""The client of a cluster's Jobs API, at the address of its dashboard: headers, certificates, errors as sentences.

Authentication is Ray's own, by its variables.
"""

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
from pipeline.storage.uris import redacted

HEADERS = "RAY_JOB_HEADERS"
"""Ray's own variable: headers for every request, as a JSON object."""
CA_FILES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables that name the certificates to trust. Ray's requests know the first two, its log the last."""


def client(address: str, ca_file: str | None = None) -> JobSubmissionClient:
    """Connect to the dashboard at `address`, a URL. Raises: ClusterError, ConfigError."""
    try:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(
            f"Jobs are submitted to the address of a dashboard, http://host:8265, not {redacted(address)}."
        )
    headers, verify = _headers(), _certificates(ca_file)
    if parts.scheme not in getproxies() or proxy_bypass(parts.hostname):
        connection.require_answer(parts.hostname, port, f"the Ray dashboard at {redacted(address)}")
    if "authorization" not in {name.lower() for name in headers or {}}:
        handshake.require_token(f"the Ray dashboard at {redacted(address)}")
    ray_internals.silence_jobs()
    with explained(address):
        return JobSubmissionClient(address, headers=headers, verify=verify)


@contextmanager
def explained(address: str, job_id: str | None = None) -> Iterator[None]:
    """Whatever the client raises, as one sentence."""
    address = redacted(address)
    try:
        yield
    except AuthenticationError as error:
        sentence = str(handshake.wants_token(f"the Ray dashboard at {address}")).rstrip(".")
        raise ClusterError(f"{sentence}; headers for a proxy before it go into {HEADERS}.") from error
    except (RuntimeError, OSError) as error:
        raise _explain(error, address, job_id) from error


def _explain(error: Exception, address: str, job_id: str | None) -> ClusterError | BusyError:
    said = str(error)
    if "does not exist" in said or "status code 404" in said:
        unknown = f"knows no job {job_id}" if job_id else "takes no jobs: its head needs ray[default]"
        return ClusterError(f"The Ray cluster at {address} {unknown}.")
    if "already exists" in said:
        return BusyError("Another process submitted this run at the same moment; `lakelens status` shows its job.")
    if "CERTIFICATE_VERIFY_FAILED" in f"{error.__context__} {said}":
        return ClusterError(
            f"The certificate of the Ray dashboard at {address} is not trusted; name the certificate "
            f"file of its authority with --ca-file, {CA_FILES[0]} or {CA_FILES[-1]}."
        )
    return ClusterError(f"The Ray cluster at {address} refused the request: {first_line(error)}.")


def _headers() -> dict[str, str] | None:
    """Raises: ConfigError, which does not show what may be a secret."""
    text = os.environ.get(HEADERS)
    if not text:
        return None
    try:
        headers = json.loads(text)
    except ValueError:
        headers = None
    if not isinstance(headers, dict) or not all(map(_is_sendable, [*headers, *headers.values()])):
        raise ConfigError(
            f'{HEADERS} must be a JSON object of texts, as in {{"X-Name": "value"}}, without blanks or line ends '
            "around them."
        )
    return headers


def _is_sendable(text: object) -> bool:
    """Whether HTTP can carry it: otherwise the error of its client shows it."""
    if not isinstance(text, str) or not text or text != text.strip() or not text.isprintable():
        return False
    return all(ord(char) < 256 for char in text)


def _certificates(ca_file: str | None) -> str | bool:
    """A file or folder of certificates; True for the system's. Raises: ConfigError."""
    named = [("--ca-file", ca_file), *((name, os.environ.get(name)) for name in CA_FILES)]
    source, path = next(((source, path) for source, path in named if path), ("", None))
    if not path:
        return True
    folder = os.path.isdir(path)
    try:
        ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)
    except OSError as error:  # an SSLError is one, too
        said = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"{source} = {path} cannot be used: {said}.") from error
    return path
