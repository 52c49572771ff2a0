"""Read the Ray runtime environment of a job from a user's YAML file."""

import json
import re
from typing import Any

from ray.runtime_env import RuntimeEnv

from pipeline.errors import ConfigError, first_line
from pipeline.storage.uris import has_secret
from pipeline.yaml_files import read_yaml

STOP_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
STOP_S = 60
"""Seconds that a stopped run has to commit what is predicted, before Ray kills it. Ray's own default is 3."""
_SECRET = re.compile(
    r"(^|_)(secrets?|tokens?|pass|pwd|\w*password|passwd|passphrase|credentials?|\w*keys?|sas|connection_string"
    r"|authorization|cookies?|headers)(_(?!file$|path$)|$)|pgpass|_pwd$",
    re.IGNORECASE,
)
"""Names of variables that are refused. Names of files that hold secrets are accepted."""


def read(path: str) -> dict[str, Any]:
    """Read a runtime environment, as for `ray job submit`. Raises: ConfigError.

    It must not set the working directory, which LakeLens needs. It must not hold a secret: everyone who sees the
    cluster's dashboard sees its values.
    """
    found = read_yaml(path, "the runtime environment")
    variables = found.get("env_vars", {}) if isinstance(found, dict) else None
    if not isinstance(variables, dict) or not all(isinstance(value, str | int) for value in variables.values()):
        raise ConfigError(
            f"The runtime environment {path} must be a YAML mapping, and its env_vars must map names to "
            "strings or numbers."
        )
    if "working_dir" in found:
        raise ConfigError(f"{path}: LakeLens sets working_dir itself. Use py_modules to send code with a job.")
    _require_no_secret(path, found, variables)
    if not str(variables.get(STOP_VARIABLE, STOP_S)).isdigit():
        raise ConfigError(f"{path}: {STOP_VARIABLE} must be a whole number of seconds.")
    asked = {**found, "env_vars": {str(name): str(value) for name, value in variables.items()}}
    try:
        json.dumps(RuntimeEnv(**{key: value for key, value in asked.items() if key != "py_modules"}))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path} is not a valid Ray runtime environment: {first_line(error)}.") from error
    return asked


def _require_no_secret(path: str, found: dict[str, Any], variables: dict[str, Any]) -> None:
    """Refuse secrets, which the dashboard would show. Raises: ConfigError."""
    if secret := next(filter(_SECRET.search, map(str, variables)), None):
        raise ConfigError(
            f"{path}: {secret} looks like a secret, and the dashboard shows a job's variables. Set it in the "
            f"environment of the cluster's nodes, and check for it with --require {secret}."
        )
    if has_secret(str(found)):
        raise ConfigError(
            f"{path}: a URL holds a password or a signature, and the dashboard would show it. Take it out of the "
            "URL."
        )
