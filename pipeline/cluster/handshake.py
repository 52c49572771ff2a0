"""What a Ray cluster wants of those who join it: a token, and the same versions of Ray and Python.

It asks the cluster before Ray does, which would try for 20 seconds, or end the process.
"""

import re

from ray.exceptions import AuthenticationError, RayError

from pipeline.cluster import ray_internals
from pipeline.errors import ClusterError, first_line


def check(address: str, where: str) -> None:
    """Ask the cluster at `address`, host:port. Raises: ClusterError, also if this process has no token to send."""
    require_token(where)
    try:
        ray_internals.require_same_versions(address)
    except (RayError, RuntimeError) as error:
        raise refusal(error, where) from error


def require_token(where: str) -> None:
    """Raises: ClusterError if a token is to be sent and there is none: Ray's core would end the process."""
    try:
        if ray_internals.sends_token() and not ray_internals.has_token():
            raise ClusterError(
                f"Cannot connect to {where}: RAY_AUTH_MODE=token is set, but there is no token; put one into "
                "~/.ray/auth_token, or set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
            )
    except AuthenticationError as error:  # the file that is named cannot be read, or is empty
        raise ClusterError(f"Cannot connect to {where}: {error.message}.") from error


def refusal(error: Exception, where: str) -> ClusterError:
    """What Ray raises when it cannot join a cluster, as one sentence."""
    text = str(error).strip()
    if isinstance(error, AuthenticationError) or "InvalidAuthToken" in text:
        return wants_token(where)
    versions = re.findall(r"^ *(?:Ray|Python): (\S+)$", text, flags=re.MULTILINE)
    if "Version mismatch" in text and len(versions) == 4:
        return ClusterError(
            "Cannot connect to {}: it runs Ray {} on Python {}, and this process has Ray {} on Python {}; install "
            "the cluster's versions here, or have a Python with them run it by `lakelens submit --python`.".format(
                where, *versions
            )
        )
    if "waiting for GCS" in text:
        return ClusterError(
            f"Cannot connect to {where}: no head of a Ray cluster answers there; give its own address, host:6379."
        )
    return ClusterError(f"Cannot connect to {where}: {first_line(error)}.")


def wants_token(where: str) -> ClusterError:
    """The sentence for a cluster that was sent no token, or another one's."""
    return ClusterError(
        f"Cannot connect to {where}: it wants a token: set RAY_AUTH_MODE=token, which takes the one in "
        "~/.ray/auth_token, or that of RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
    )
