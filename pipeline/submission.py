"""Runs as jobs of a Ray cluster, by its Jobs API: submit, follow, list, stop.

It knows configs and jobs; what a run does it does not know. Authentication is Ray's own, by its variables.
"""

import asyncio
import hashlib
import json
import logging
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient
from ray.runtime_env import RuntimeEnv

from pipeline import __version__, cluster
from pipeline.config import RunConfig, read_yaml
from pipeline.errors import BusyError, ClusterError, ConfigError
from pipeline.storage import scheme

ENDED = {"SUCCEEDED": 0, "FAILED": 1, "STOPPED": 130}
"""Exit codes of jobs that have ended, where Ray does not know that of the process."""
STOP_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
STOP_S = 60
"""How long a run that is stopped has to commit what is predicted, before Ray kills it; Ray's own default is 3."""
AGENT_S = 60.0
"""How long a head that has just started may take until it can take jobs."""
PAUSE_S = 1.0
"""Between two tries to submit a job, or to follow its log."""
SHIPPED = ("pipeline", "jobs")
"""Packages that go with a job: the code is the same everywhere. What they need is in the cluster's image."""
_SECRET = re.compile(
    r"(^|_)(secret|token|pass|password|passwd|credentials?|key|sas|connection_string)(_(?!file$|path$)|$)",
    re.IGNORECASE,
)
"""Names of variables that are not sent; those of files that hold secrets are."""
_IN_URL = re.compile(r"://[^/@\s:]*:[^/@\s]+@")
"""A password in a URL."""
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

    def __init__(self, address: str) -> None:
        """Raises: ClusterError if nothing answers there, or it wants a token."""
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ClusterError(
                f"Jobs are submitted to the address of a dashboard, http://host:8265, not {address}."
            )
        port = parts.port or (443 if parts.scheme == "https" else 80)
        cluster.require_answer(parts.hostname, port, f"the Ray dashboard at {address}")
        self._address = address
        logging.getLogger("ray.dashboard").setLevel(logging.WARNING)  # it tells of every package and socket
        logging.getLogger("ray._private.runtime_env").setLevel(logging.WARNING)
        with self._explained():
            self._client = JobSubmissionClient(address)

    def submit(
        self, config: RunConfig, options: Sequence[str] = (), runtime_env: Mapping[str, Any] | None = None
    ) -> str:
        """Submit a run with these options of `lakelens run`, in a Ray runtime environment; returns the job's id.

        The id is a hash of all these and how often they were submitted before. Raises: BusyError if that job is
        there and has not ended, ConfigError for a path that only this machine has, ClusterError.
        """
        _require_shared_paths(config)
        text, runtime_env = config.to_yaml(), dict(runtime_env or {})
        variables = {STOP_VARIABLE: str(STOP_S)} | runtime_env.pop("env_vars", {})
        told = (text, *options, json.dumps([runtime_env, variables], sort_keys=True))
        digest = hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
        before = [job for job in self.all() if job.id.rpartition("-")[0] == digest]
        for job in before:
            if job.exit_code is None:
                raise BusyError(f"This run is submitted already, as job {job.id}, which is {job.status.lower()}.")
        entrypoint = shlex.join(("python", "-m", "jobs", "run", "config.yaml", *options))
        with tempfile.TemporaryDirectory(prefix="lakelens-submit-") as folder, self._explained():
            _pack(Path(folder), text)
            return self._submitted(
                submission_id=f"{digest}-{len(before)}",  # which Ray gives to one of two that ask at once
                entrypoint=f"exec {entrypoint}",
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
            with suppress(RuntimeError, OSError):  # the connection broke; the job goes on
                asyncio.run(tail())
            code = self.find(job_id).exit_code
            if code is not None:
                return code
            time.sleep(PAUSE_S)

    @contextmanager
    def _explained(self, job_id: str | None = None) -> Iterator[None]:
        """Whatever the client raises, as one sentence."""
        try:
            yield
        except AuthenticationError as error:
            raise ClusterError(
                f"The Ray cluster at {self._address} wants a token: set RAY_AUTH_MODE=token, and "
                "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
            ) from error
        except (RuntimeError, OSError) as error:
            said = str(error)
            if "does not exist" in said or "status code 404" in said:
                unknown = f"knows no job {job_id}" if job_id else "takes no jobs: its head needs ray[default]"
                raise ClusterError(f"The Ray cluster at {self._address} {unknown}.") from error
            if "already exists" in said:
                raise BusyError("This run was submitted from elsewhere at the same moment.") from error
            first = said.strip().splitlines()[0] if said.strip() else type(error).__name__
            raise ClusterError(
                f"The Ray cluster at {self._address} did not do it: {first.rstrip('.')}."
            ) from error


def runtime_env(path: str) -> dict[str, Any]:
    """A Ray runtime environment from a YAML file, as for `ray job submit`. Raises: ConfigError.

    It may not have a working directory, which is LakeLens's own, nor a secret: everyone who sees the cluster's
    dashboard sees its values.
    """
    found = read_yaml(path, "the runtime environment")
    variables = found.get("env_vars", {}) if isinstance(found, dict) else None
    if not isinstance(variables, dict) or not all(isinstance(value, str | int) for value in variables.values()):
        raise ConfigError(
            f"The runtime environment {path} must be a YAML mapping, and its env_vars one of names to texts or "
            "numbers."
        )
    if "working_dir" in found:
        raise ConfigError(f"{path}: working_dir is LakeLens's own; use py_modules for code that goes with a job.")
    _require_no_secret(path, found, variables)
    if not str(variables.get(STOP_VARIABLE, STOP_S)).isdigit():
        raise ConfigError(f"{path}: {STOP_VARIABLE} is a whole number of seconds.")
    asked = {**found, "env_vars": {str(name): str(value) for name, value in variables.items()}}
    try:
        json.dumps(RuntimeEnv(**{key: value for key, value in asked.items() if key != "py_modules"}))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no runtime environment of Ray's: {str(error).splitlines()[0]}") from error
    return asked


def _require_no_secret(path: str, found: dict[str, Any], variables: dict[str, Any]) -> None:
    """Raises: ConfigError."""
    if secret := next(filter(_SECRET.search, map(str, variables)), None):
        raise ConfigError(
            f"{path}: {secret} looks like a secret, and the dashboard shows a job's variables; set it in the "
            f"environment of the cluster's nodes, and give --require {secret}."
        )
    if _IN_URL.search(str(found)):
        raise ConfigError(f"{path}: a URL has a password in it, and the dashboard shows it.")


def _require_shared_paths(config: RunConfig) -> None:
    """Raises: ConfigError."""
    paths = [("manifest.path", path) for path in config.manifest.path] + [("output.path", config.output.path)]
    if Path(config.model.name).is_dir():
        paths.append(("model.name", config.model.name))
    for key, path in paths:
        if scheme(path) == "file" and not path.startswith(("/", "file:")):
            raise ConfigError(
                f"{key} = {path} is relative to this machine's folder; give a job a URI, or an absolute path that "
                "every node of the cluster has."
            )


def _pack(folder: Path, config: str) -> None:
    """What a job needs of this machine: a config, and LakeLens itself, some 300 kB."""
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    for package in SHIPPED:
        shutil.copytree(Path(__file__).parents[1] / package, folder / package, ignore=_LEFT_OUT)


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
