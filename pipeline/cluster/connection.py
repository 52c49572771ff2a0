"""Connect to Ray, and tell what its workers raised. It does not know what they do."""

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
"""How long a cluster's port may take to answer; Ray itself tries for five minutes."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Join the cluster at `address` or $RAY_ADDRESS, else start one on this machine; leave it afterwards.

    Raises: ClusterError.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    address = None if address == "local" else address  # Ray's own name for it
    if ray.is_initialized():  # the process that called us owns the connection
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray Data starts its actors in a way that Ray's own core logs as an error, every time.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    _check_address(address)
    where = f"the Ray cluster at {address}" if address else "a Ray cluster on this machine"
    try:
        with _hushed(), _signals_kept():
            local = {} if address else local_cluster.prepare()
            if address and _has_port(address):
                handshake.check(address, where)
            ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **local)
    except (RayError, OSError, RuntimeError, ValueError) as error:
        raise handshake.refusal(error, where) from error
    try:
        ray_internals.silence_data()  # its bars would drown the progress line, and its errors are raised
        yield
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Raises: ClusterError at once for an address where nothing answers."""
    if address and "://" in address:
        raise ClusterError(
            f"Cannot run through {address}, the address of a dashboard or of a Ray client; give the head node's "
            "own, host:6379."
        )
    if address and _has_port(address):
        host, _, port = address.rpartition(":")
        require_answer(host, int(port), f"the Ray cluster at {address}")


def _has_port(address: str) -> bool:
    """False for "auto"."""
    _, colon, port = address.rpartition(":")
    return bool(colon) and port.isdigit()


def require_answer(host: str, port: int, where: str) -> None:
    """Raises: ClusterError if nothing answers at a port; Ray would try for minutes."""
    try:
        socket.create_connection((host.strip("[]"), port), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise ClusterError(f"Cannot connect to {where}: nothing answers there.") from error


@contextmanager
def explained() -> Iterator[None]:
    """Turn what Ray raises into the LakeLensError that a worker raised, or into a ClusterError."""
    try:
        yield
    except RayError as error:
        raise _explain(error) from error


def _explain(error: RayError) -> LakeLensError:
    """Ray gives only the text of what a worker raised: its last "module.Name: sentence" before Ray's own."""
    raised = re.findall(r"^([\w.]+\.)?(\w+(?:Error|Exception)): (.+)$", str(error), flags=re.MULTILINE)
    for module, name, sentence in raised:
        kind = getattr(errors, name, None) if module == f"{errors.__name__}." else None
        if isinstance(kind, type) and issubclass(kind, LakeLensError):
            return kind(sentence.strip())
    said = ": ".join(raised[0][1:]) if raised else first_line(error)
    return ClusterError(f"Ray lost the work: {said.rstrip('.')}.")


@contextmanager
def _hushed() -> Iterator[None]:
    """Ray's C++ core writes straight to file descriptor 2 as it starts; what goes wrong comes as exceptions."""
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
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own on SIGTERM, which aborts the process; the caller's stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
