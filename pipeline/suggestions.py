"""Turn a validation error of a config into one sentence that names the key, and the key that may be meant."""

import difflib
from collections.abc import Iterable, Mapping
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

ALTERNATIVES = ("auto", "pool")
"""Tags of the kinds of value that a key may have. They are in pydantic's paths, but not in the user's file."""


def sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first problem of a validation as a sentence."""
    first = error.errors(include_url=False)[0]
    where = [str(part) for part in first["loc"] if part not in ALTERNATIVES]
    key = ".".join(where)
    if first["type"] == "extra_forbidden":
        return _unknown_key(model, where)
    if first["type"] == "missing":
        return f"the key {key} is missing."
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message}." if key else f"{message}."


def fields(model: type[BaseModel], parents: Iterable[str]) -> Mapping[str, FieldInfo]:
    """Return the keys of the section at this path; none if there is no such section."""
    for parent in parents:
        found = _section_of(model.model_fields[parent].annotation) if parent in model.model_fields else None
        if found is None:
            return {}
        model = found
    return model.model_fields


def _unknown_key(model: type[BaseModel], where: list[str]) -> str:
    *parents, typo = where
    valid = list(fields(model, parents))
    near = difflib.get_close_matches(typo, valid, n=1, cutoff=0.5)
    elsewhere = [path for path in _all_keys(model) if path.split(".")[-1] == typo]
    prefix = ".".join([*parents, ""])
    meant = [prefix + name for name in near] or elsewhere
    hint = f"did you mean {meant[0]}?" if meant else f"valid keys here: {', '.join(valid)}."
    return f"{prefix}{typo} is not a key; {hint}"


def _section_of(annotation: object) -> type[BaseModel] | None:
    """Return the section among an annotation's alternatives; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_of, get_args(annotation))), None)


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        inner = _section_of(field.annotation)
        if inner is not None:
            yield from _all_keys(inner, f"{prefix}{name}.")
