"""What a Ray cluster requires of its clients: a token, and the same versions of Ray and Python.

This module asks the cluster before Ray does. Ray would try for 20 seconds, or end the process.
"""

import re
import socket

from ray.exceptions import AuthenticationError, RayError

from pipeline.cluster import ray_internals
from pipeline.errors import ClusterError, first_line

ANSWER_S = 10.0
"""How long a head may take to answer at all. Ray itself would wait for 40 seconds."""
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""What a gRPC client sends first, and every gRPC server answers: RFC 9113, section 3.4."""


def require_access(address: str, where: str) -> None:
    """Ask the cluster at `address`, host:port, whether this process may join it. Raises: ClusterError."""
    require_token(where)
    _require_answer(address, where)
    try:
        ray_internals.require_same_versions(address)
    except (RayError, RuntimeError) as error:
        raise refusal(error, where) from error


def _require_answer(address: str, where: str) -> None:
    """Greet a gRPC server. Raises: ClusterError if the port accepts the connection and stays silent."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_S) as connection:
            connection.sendall(_GREETING)
            connection.recv(1)
    except TimeoutError as error:
        raise ClusterError(
            f"Cannot connect to {where}: it accepts connections and does not answer. Check the address, and that "
            "the Ray head is healthy."
        ) from error
    except OSError:  # Ray says what is wrong
        return


def require_token(where: str) -> None:
    """Look for the token if one must be sent; Ray's core ends a process without it. Raises: ClusterError."""
    try:
        if ray_internals.sends_token() and not ray_internals.has_token():
            raise ClusterError(
                f"Cannot connect to {where}: RAY_AUTH_MODE=token is set, but there is no token. Put the cluster's "
                "token into ~/.ray/auth_token, or set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
            )
    except AuthenticationError as error:  # the named file cannot be read, or is empty
        raise ClusterError(f"Cannot connect to {where}: {error.message}.") from error


def refusal(error: Exception, where: str) -> ClusterError:
    """Translate what Ray raises when it cannot join a cluster."""
    text = str(error).strip()
    if isinstance(error, AuthenticationError) or "InvalidAuthToken" in text:
        return token_required(where)
    versions = re.findall(r"^ *(?:Ray|Python): (\S+)$", text, flags=re.MULTILINE)
    if "Version mismatch" in text and len(versions) == 4:
        return ClusterError(
            "Cannot connect to {}: it runs Ray {} on Python {}, and this process has Ray {} on Python {}. Install "
            "the cluster's versions here, or submit the run as a job: `lakelens submit`.".format(where, *versions)
        )
    if "waiting for GCS" in text:
        return ClusterError(
            f"Cannot connect to {where}: no Ray head answers. Give the address of the head node, such as "
            "host:6379."
        )
    return ClusterError(f"Cannot connect to {where}: {first_line(error)}.")


def token_required(where: str) -> ClusterError:
    """Return the error for a cluster that got no token, or a wrong one."""
    return ClusterError(
        f"Cannot connect to {where}: it requires a token, and got none or another one. Set RAY_AUTH_MODE=token, "
        "and provide the cluster's token in ~/.ray/auth_token, RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
    )
