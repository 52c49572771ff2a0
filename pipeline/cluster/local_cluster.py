"""Prepare this machine for a Ray cluster of our own, whatever the user's environment looks like.

This module does not connect to anything.
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

IDLE_WORKERS = 16
"""Idle processes that our cluster keeps for the next task, in addition to one per CPU."""
MAX_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""The longest path that the kernel allows for a Unix socket, in bytes."""
LONGEST_SOCKET = f"/session_2026-01-01_00-00-00_000000_{2**22}/sockets/plasma_store.0"
"""The longest path that Ray uses for a socket, below its temporary folder."""
FALLBACK_FOLDERS = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108 - we make a folder of our user's there
"""Folders that everybody may write to on most systems."""
UV_VARIABLE = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"


def prepare() -> dict[str, Any]:
    """Prepare this process to start a cluster, and return the options for `ray.init`. Raises: ClusterError."""
    # By default Ray ends a process that was idle for a second. Every write of files would wait for a new one.
    os.environ.setdefault("RAY_num_workers_soft_limit", str(IDLE_WORKERS + (os.cpu_count() or 1)))
    if UV_VARIABLE not in os.environ:
        ray_internals.ignore_uv()
    caches.set_environment()
    _set_token()
    options: dict[str, Any] = {"include_dashboard": False, **_folders()}
    if os.cpu_count() == 1:  # otherwise Ray counts them, and knows a container's limits
        options["num_cpus"] = 2
    return options


def _set_token() -> None:
    """Give the cluster a token. Ray writes one into the user's home; without a writable home it goes into the
    environment, which workers inherit."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token" or _has_token():
        return
    home = caches.home()
    if home is None or not caches.is_writable(home / ".ray"):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex()
        ray_internals.reload_authentication()


def _has_token() -> bool:
    try:
        return ray_internals.has_token()
    except AuthenticationError as error:  # the named file cannot be read, or is empty
        raise ClusterError(f"Ray cannot read its token: {error.message}.") from error


def _folders() -> dict[str, str]:
    """Choose another folder for Ray's files if its own is not writable, or too long for the paths of sockets.

    Objects that spill to the disk stay in the user's folder, which may have more space.
    """
    chosen = ray_internals.default_temporary_folder()
    writable = caches.is_writable(chosen)
    if writable and _is_short(chosen):
        return {}
    spilling = {"object_spilling_directory": str(chosen)} if writable else {}
    for parent in (caches.temporary_files(), *FALLBACK_FOLDERS):
        with suppress(OSError):
            folder = caches.temporary("ray", parent)
            if _is_short(folder) and caches.is_writable(folder):
                return {**ray_internals.temporary_folder_option(folder), **spilling}
    raise ClusterError(
        f"Ray cannot start: its temporary folder {chosen} is not writable, or its path is too long for sockets. "
        "Set RAY_TMPDIR to another folder."
    )


def _is_short(folder: Path) -> bool:
    return len(os.fsencode(folder)) + len(LONGEST_SOCKET) <= MAX_SOCKET_BYTES
