"""Read YAML files and override single keys. It does not know which keys a config has; a pydantic model does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from pipeline import suggestions
from pipeline.errors import ConfigError


def read_yaml(path: str | Path, what: str) -> Any:
    """Return the content of a YAML file. `what` names its role in errors. Raises: ConfigError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"Cannot read {what} {path}: {reason}.") from error
    return parse_yaml(text, f"{what} {path}")


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML text. Raises: ConfigError, with the source and the line."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(f"Cannot parse {source} as YAML{where}: {getattr(error, 'problem', error)}.") from error


def override(values: dict[str, Any], assignment: str, model: type[BaseModel]) -> None:
    """Apply `key.subkey=value` to a mapping in place; inner mappings are copied first. Raises: ConfigError.

    The value is YAML. For keys that take text it is literal: `*.parquet`, `{space}` and 007 need no quotes.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {assignment!r} must look like key.subkey=value.")
    *parents, last = key.split(".")
    section = values
    for parent in parents:
        inner = section.get(parent)
        section[parent] = dict(inner) if isinstance(inner, Mapping) else {}
        section = section[parent]
    literal = _takes_text(model, parents, last) and text[:1] not in ("[", '"', "'") and text not in ("null", "~")
    section[last] = text if literal else parse_yaml(text, f"--set {key}")


def _takes_text(model: type[BaseModel], parents: list[str], name: str) -> bool:
    field = suggestions.fields(model, parents).get(name)
    return field is not None and (field.annotation is str or str in get_args(field.annotation))
