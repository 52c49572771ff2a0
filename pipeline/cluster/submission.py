"""Runs as jobs of a Ray cluster, by its Jobs API: submit, follow, list, stop.

It knows configs and jobs; what a run does it does not know.
"""

import asyncio
import hashlib
import json
import shlex
import shutil
import tempfile
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
from pipeline.storage.uris import is_relative

ENDED = {"SUCCEEDED": 0, "FAILED": 1, "STOPPED": 130}
"""Exit codes of jobs that have ended, where Ray does not know that of the process."""
AGENT_S = 60.0
"""How long a head that has just started may take until it can take jobs."""
PAUSE_S = 1.0
"""Between two tries to submit a job, or to follow its log."""
SHIPPED = ("pipeline", "jobs")
"""Packages that go with a job: the code is the same everywhere. What they need is in the cluster's image."""
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
    """The runs that were submitted to one cluster, at the address of its dashboard."""

    def __init__(self, address: str, ca_file: str | None = None) -> None:
        """`ca_file` has the certificates to trust, else those of the environment and the system.

        Raises: ClusterError if nothing answers there, or it wants a token; ConfigError.
        """
        self._explained = partial(dashboard.explained, address)
        self._client = dashboard.client(address, ca_file)

    def submit(
        self,
        config: RunConfig,
        options: Sequence[str] = (),
        runtime_env: Mapping[str, Any] | None = None,
        python: str | None = None,
    ) -> str:
        """Submit a run with these options of `lakelens run`, in a Ray runtime environment; returns the job's id.

        `python` is the cluster's Python to run it with, a name or a path; by default the one on its PATH.

        The id is a hash of all these and how often they were submitted before. Raises: BusyError if that job is
        there and has not ended, ConfigError for a path that only this machine has, ClusterError.
        """
        _require_shared_paths(config)
        text, runtime_env = config.to_yaml(), dict(runtime_env or {})
        variables = {STOP_VARIABLE: str(STOP_S)} | runtime_env.pop("env_vars", {})
        told = (text, *options, *filter(None, [python]), json.dumps([runtime_env, variables], sort_keys=True))
        digest = hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
        before = [job for job in self.all() if job.id.rpartition("-")[0] == digest]
        for job in before:
            if job.exit_code is None:
                raise BusyError(f"This run is submitted already, as job {job.id}, which is {job.status.lower()}.")
        with tempfile.TemporaryDirectory(prefix="lakelens-submit-") as folder, self._explained():
            _pack(Path(folder), text)
            return self._submitted(
                submission_id=f"{digest}-{len(before)}",  # which Ray gives to one of two that ask at once
                entrypoint=_entrypoint(python, options),
                runtime_env={**runtime_env, "working_dir": folder, "env_vars": variables},
                metadata={"lakelens": __version__, "output": config.output.path},
            )

    def _submitted(self, **job: Any) -> str:
        """A head that has just started answers before it can take jobs."""
        patience_s = time.monotonic() + AGENT_S
        while True:
            try:
                return str(self._client.submit_job(**job))
            except RuntimeError as error:
                if "No available agent" not in str(error) or time.monotonic() > patience_s:
                    raise
            time.sleep(PAUSE_S)

    def all(self) -> list[Job]:
        """Every submitted run that the cluster remembers, the newest first. Raises: ClusterError."""
        with self._explained():
            found = self._client.list_jobs()
        jobs = [_job(details) for details in found if "lakelens" in (details.metadata or {})]
        return sorted(jobs, key=lambda job: (job.started_at is None, job.started_at), reverse=True)

    def find(self, job_id: str) -> Job:
        """Raises: ClusterError, also if there is no such job."""
        with self._explained(job_id):
            return _job(self._client.get_job_info(job_id))

    def stop(self, job_id: str) -> bool:
        """Ask a run to commit what it has and end; False if it had ended. Raises: ClusterError."""
        if self.find(job_id).exit_code is not None:
            return False
        with self._explained(job_id):
            return bool(self._client.stop_job(job_id))

    def follow(self, job_id: str, say: Callable[[str], None]) -> int:
        """Pass the job's log on until it ends; returns its exit code. Raises: ClusterError."""
        shown = 0

        async def tail() -> None:
            nonlocal shown
            position = 0
            async for text in self._client.tail_job_logs(job_id):
                position += len(text)
                if position > shown:  # a log that is followed again begins anew
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
    """Raises: ConfigError."""
    paths = [("manifest.path", path) for path in config.manifest.path] + [("output.path", config.output.path)]
    if Path(config.model.name).is_dir():
        paths.append(("model.name", config.model.name))
    for key, path in paths:
        if is_relative(path):
            raise ConfigError(
                f"{key} = {path} is relative to this machine's folder; give a job a URI, or an absolute path that "
                "every node of the cluster has."
            )


def _pack(folder: Path, config: str) -> None:
    """What a job needs of this machine: a config, and LakeLens itself, some 300 kB."""
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    for package in SHIPPED:
        shutil.copytree(Path(__file__).parents[2] / package, folder / package, ignore=_LEFT_OUT)


def _entrypoint(python: str | None, options: Sequence[str]) -> str:
    """A shell's command line. The head's Python need not be on the PATH of its jobs."""
    names = [python] if python else ["python", "python3"]
    found = " || ".join(f"command -v {shlex.quote(name)}" for name in names)
    missing = f"error: There is no {' or '.join(names)} on the head that runs this job: give one with --python."
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
