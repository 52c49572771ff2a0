"""What Ray needs to start a cluster of our own on this machine, whatever the user's environment is like.

It does not connect to anything.
"""

import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray.exceptions import AuthenticationError

from pipeline.cluster import ray_internals
from pipeline.errors import ClusterError
from pipeline.storage import caches

WORKERS = 16
"""Processes that a cluster of our own keeps for the next task, besides one for each CPU."""
SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""The longest path of a Unix socket."""
SOCKET = f"/session_2026-01-01_00-00-00_000000_{2**22}/sockets/plasma_store.0"
"""The longest path of a socket below Ray's temporary folder."""
ELSEWHERE = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108 - a folder of the user's own is made there
"""Where most systems let everyone write."""
UV = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"


def prepare() -> dict[str, Any]:
    """Set up this process to start a cluster; returns the options of `ray.init` for it. Raises: ClusterError."""
    # Else Ray ends a process that was idle for a second, and every write of files waits for a new one to start.
    os.environ.setdefault("RAY_num_workers_soft_limit", str(WORKERS + (os.cpu_count() or 1)))
    if UV not in os.environ:
        ray_internals.ignore_uv()
    caches.set_environment()
    _set_token()
    options: dict[str, Any] = {"include_dashboard": False, **_folders()}
    if os.cpu_count() == 1:  # else Ray counts, and knows a container's limits
        options["num_cpus"] = 2
    return options


def _set_token() -> None:
    """Ray asks for a token, and writes a new one into the user's home; without a home it is in the environment,
    which workers inherit."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token" or _has_token():
        return
    home = caches.home()
    if home is None or not caches.is_writable(home / ".ray"):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex()
        ray_internals.reload_authentication()


def _has_token() -> bool:
    try:
        return ray_internals.has_token()
    except AuthenticationError as error:  # the file that is named cannot be read, or is empty
        raise ClusterError(f"Ray finds no token: {error.message}.") from error


def _folders() -> dict[str, str]:
    """Where Ray's files are, if its own choice cannot have sockets: their paths are limited.

    What objects spill to the disk still goes to the user's choice, which may have more space.
    """
    chosen = ray_internals.default_temporary_folder()
    writable = caches.is_writable(chosen)
    if writable and _is_short(chosen):
        return {}
    spilling = {"object_spilling_directory": str(chosen)} if writable else {}
    for parent in (caches.temporary_files(), *ELSEWHERE):
        with suppress(OSError):
            folder = caches.temporary("ray", parent)
            if _is_short(folder) and caches.is_writable(folder):
                return {**ray_internals.temporary_folder_option(folder), **spilling}
    raise ClusterError(
        f"Ray cannot start: the path {chosen} is too long for its sockets, or cannot be written; set RAY_TMPDIR "
        "to another folder."
    )


def _is_short(folder: Path) -> bool:
    return len(os.fsencode(folder)) + len(SOCKET) <= SOCKET_BYTES
