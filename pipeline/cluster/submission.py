"""Runs as jobs of a Ray cluster, through its Jobs API: submit, follow, list, stop.

This module knows configs and jobs, but not what a run does.
"""

import asyncio
import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import ClientError
from ray.job_submission import JobDetails

from pipeline import __version__
from pipeline.cluster import dashboard
from pipeline.cluster.runtime_environment import STOP_S, STOP_VARIABLE
from pipeline.config import RunConfig
from pipeline.errors import BusyError, ConfigError
from pipeline.storage import temporary_folders
from pipeline.storage.uris import is_relative

ENDED = {"SUCCEEDED": 0, "FAILED": 1, "STOPPED": 130}
"""Exit codes of jobs that have ended, where Ray does not know the exit code of the process."""
AGENT_S = 60.0
"""Seconds after which a head that has just started must accept jobs."""
PAUSE_S = 1.0
"""Seconds between two attempts to submit a job, or to follow its log."""
SHIPPED = ("pipeline", "jobs")
"""Packages that are sent with a job. Their dependencies are in the cluster's image."""
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "demo", "demo.py")


@dataclass(frozen=True)
class Job:
    """A submitted run. `exit_code` is None until it has ended."""

    id: str
    status: str
    output: str
    started_at: datetime | None
    ended_at: datetime | None
    exit_code: int | None
    message: str


class Submissions:
    """The runs that were submitted to one cluster."""

    def __init__(self, address: str, ca_file: str | None = None) -> None:
        """Connect to the dashboard at `address`, a URL.

        `ca_file` holds the certificates to trust. The default is those of the environment and of the system.
        Raises: ClusterError if nothing answers or the token is wrong; ConfigError.
        """
        self._translated_errors = partial(dashboard.translated_errors, address)
        self._client = dashboard.client(address, ca_file)

    def submit(
        self,
        config: RunConfig,
        options: Sequence[str] = (),
        runtime_env: Mapping[str, Any] | None = None,
        python: str | None = None,
    ) -> str:
        """Submit a run with these options of `lakelens run`, and return the job's id.

        `runtime_env` is a Ray runtime environment. `python` is the name or path of a Python on the cluster; the
        default is the one on its PATH. The id is a hash of all arguments, and the number of jobs that had them
        before. Raises: BusyError if such a job has not ended, ConfigError for a path that only this machine has,
        StorageError if the temporary folder is full, ClusterError.
        """
        _require_shared_paths(config)
        text, runtime_env = config.to_yaml(), dict(runtime_env or {})
        variables = {STOP_VARIABLE: str(STOP_S)} | runtime_env.pop("env_vars", {})
        parts = (text, *options, *filter(None, [python]), json.dumps([runtime_env, variables], sort_keys=True))
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
        before = [job for job in self.all() if job.id.rpartition("-")[0] == digest]
        for job in before:
            if job.exit_code is None:
                raise BusyError(
                    f"This run was already submitted as job {job.id}, which is {job.status.lower()}. Wait "
                    "for it, or stop it: `lakelens stop`."
                )
        with temporary_folders.folder() as folder:
            _pack(folder, text)  # not in `_translated_errors`: a full disk is this machine's error
            with self._translated_errors():
                return self._submitted(
                    submission_id=f"{digest}-{len(before)}",  # if two ask at once, Ray refuses one
                    entrypoint=_entrypoint(python, options),
                    runtime_env={**runtime_env, "working_dir": str(folder), "env_vars": variables},
                    metadata={"lakelens": __version__, "output": config.output.path},
                )

    def _submitted(self, **job: Any) -> str:
        """Submit a job. A head that has just started answers before it accepts jobs."""
        deadline_s = time.monotonic() + AGENT_S
        while True:
            try:
                return str(self._client.submit_job(**job))
            except RuntimeError as error:
                if "No available agent" not in str(error) or time.monotonic() > deadline_s:
                    raise
            time.sleep(PAUSE_S)

    def all(self) -> list[Job]:
        """Return every submitted run that the cluster remembers, the newest first. Raises: ClusterError."""
        with self._translated_errors():
            found = self._client.list_jobs()
        jobs = [_job(details) for details in found if "lakelens" in (details.metadata or {})]
        return sorted(jobs, key=lambda job: (job.started_at is None, job.started_at), reverse=True)

    def find(self, job_id: str) -> Job:
        """Return one job. Raises: ClusterError, also if there is no such job."""
        with self._translated_errors(job_id):
            return _job(self._client.get_job_info(job_id))

    def stop(self, job_id: str) -> bool:
        """Ask a run to commit what it has and to end. Return False if it had ended. Raises: ClusterError."""
        if self.find(job_id).exit_code is not None:
            return False
        with self._translated_errors(job_id):
            return bool(self._client.stop_job(job_id))

    def follow(self, job_id: str, say: Callable[[str], None]) -> int:
        """Pass the job's log on until the job ends, and return its exit code. Raises: ClusterError."""
        shown = 0

        async def tail() -> None:
            nonlocal shown
            position = 0
            async for text in self._client.tail_job_logs(job_id):
                position += len(text)
                if position > shown:  # after a broken connection the log starts from its beginning
                    say(text[shown - position :])
                    shown = position

        while True:
            with suppress(RuntimeError, OSError, ClientError):  # the connection broke; the job goes on
                asyncio.run(tail())
            code = self.find(job_id).exit_code
            if code is not None:
                return code
            time.sleep(PAUSE_S)


def _require_shared_paths(config: RunConfig) -> None:
    """Refuse paths that only this machine has. Raises: ConfigError."""
    paths = [("manifest.path", path) for path in config.manifest.path] + [("output.path", config.output.path)]
    if Path(config.model.name).is_dir():
        paths.append(("model.name", config.model.name))
    for key, path in paths:
        if is_relative(path):
            raise ConfigError(
                f"{key} = {path} is relative to a folder of this machine. A job needs a URI, or an absolute path "
                "that exists on every node of the cluster."
            )


def _pack(folder: Path, config: str) -> None:
    """Copy what a job needs from this machine to a folder: the config, and LakeLens itself, some 300 kB.

    Raises: StorageError if the folder has no room for it.
    """
    try:
        (folder / "config.yaml").write_text(config, encoding="utf-8")
        for package in SHIPPED:
            shutil.copytree(Path(__file__).parents[2] / package, folder / package, ignore=_LEFT_OUT)
    except OSError as error:
        raise temporary_folders.write_error(folder, error) from error


def _entrypoint(python: str | None, options: Sequence[str]) -> str:
    """Return a shell command line. The Python that runs the head may be missing on the PATH of its jobs."""
    names = [python] if python else ["python", "python3"]
    found = " || ".join(f"command -v {shlex.quote(name)}" for name in names)
    missing = f"error: The head that runs this job has no {' or '.join(names)}. Name a Python with --python."
    words = shlex.join(("-m", "jobs.entrypoint", "run", "config.yaml", *options))
    return f'python=$({found}) || {{ echo {shlex.quote(missing)} >&2; exit 2; }}; exec "$python" {words}'


def _job(details: JobDetails) -> Job:
    status = str(details.status)
    code: Any = ENDED.get(status)
    if status == "FAILED" and details.driver_exit_code:
        code = details.driver_exit_code
    return Job(
        id=str(details.submission_id),
        status=status,
        output=(details.metadata or {}).get("output", ""),
        started_at=_moment(details.start_time),
        ended_at=_moment(details.end_time),
        exit_code=code,
        message=(details.message or "").strip(),
    )


def _moment(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
