"""Connect to Ray, and translate the errors of its workers. It does not know what they do."""

import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.exceptions import RayError

from pipeline import errors
from pipeline.cluster import handshake, local_cluster, ray_internals
from pipeline.errors import ClusterError, LakeLensError, first_line

CONNECT_TIMEOUT_S = 10.0
"""Seconds that a cluster's port may take to answer. Ray itself tries for five minutes."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Join the cluster at `address` or $RAY_ADDRESS, or start one on this machine; leave it at the end.

    Raises: ClusterError.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    address = None if address == "local" else address  # Ray's own name for a new cluster on this machine
    if ray.is_initialized():  # our caller owns the connection
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's core logs an error each time that Ray Data starts an actor.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    _check_address(address)
    where = f"the Ray cluster at {address}" if address else "a Ray cluster on this machine"
    try:
        with _stderr_silenced(), _signal_handlers_kept():
            local = {} if address else local_cluster.prepare()
            if address and _has_port(address):
                handshake.require_access(address, where)
            ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **local)
    except (RayError, OSError, RuntimeError, ValueError) as error:
        raise handshake.refusal(error, where) from error
    try:
        ray_internals.silence_data()  # its bars would overwrite our progress line; its errors are raised anyway
        with ray_internals.silenced_retries():
            yield
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Check an address before Ray does. Raises: ClusterError if it is of another kind, or nothing answers."""
    if address and "://" in address:
        raise ClusterError(
            f"Cannot connect to {address}: this is the address of a dashboard or of a Ray client. Give the "
            "address of the head node, such as host:6379."
        )
    if address and _has_port(address):
        host, _, port = address.rpartition(":")
        require_answer(host, int(port), f"the Ray cluster at {address}")


def _has_port(address: str) -> bool:
    """Tell host:port from "auto"."""
    _, colon, port = address.rpartition(":")
    return bool(colon) and port.isdigit()


def require_answer(host: str, port: int, where: str) -> None:
    """Connect to a port once; Ray would try for minutes. Raises: ClusterError if nothing answers."""
    try:
        socket.create_connection((host.strip("[]"), port), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise ClusterError(
            f"Cannot connect to {where}: nothing answers. Check the address, and that the cluster runs."
        ) from error


@contextmanager
def translated_errors() -> Iterator[None]:
    """Replace Ray's error by the LakeLensError that a worker raised, or by a ClusterError."""
    try:
        yield
    except RayError as error:
        raise _translated(error) from error


def _translated(error: RayError) -> LakeLensError:
    """Read a worker's error from Ray's text, which is all that Ray passes on.

    A line of the traceback has the form "module.Name: sentence".
    """
    raised = re.findall(r"^([\w.]+\.)?(\w+(?:Error|Exception)): (.+)$", str(error), flags=re.MULTILINE)
    for module, name, sentence in raised:
        kind = getattr(errors, name, None) if module == f"{errors.__name__}." else None
        if isinstance(kind, type) and issubclass(kind, LakeLensError):
            return kind(sentence.strip())
    said = ": ".join(raised[0][1:]) if raised else first_line(error)
    return ClusterError(
        f"Ray could not finish the work: {said.rstrip('.')}. Committed rows are kept. Run again to process the "
        "rest."
    )


@contextmanager
def _stderr_silenced() -> Iterator[None]:
    """Drop what Ray's C++ core writes to file descriptor 2 while it starts. Its errors are raised as well."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Restore the caller's handlers: `ray.init` sets one on SIGTERM, which aborts the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
