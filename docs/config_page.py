"""Write the tables of keys in docs/config.md from pipeline/config.py: `python -m docs.config_page`.

The text around the tables is written by hand and stays.
"""

import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.config import ManifestColumns, PoolConfig, RunConfig

PAGE = Path(__file__).with_name("config.md")
BEGIN = "<!-- Generated from pipeline/config.py by `python -m docs.config_page`. -->"
END = "<!-- End of the generated tables. -->"
NAMES = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null"}


def tables() -> str:
    """Return one heading, sentence and table for each section of the config."""
    sections = [_section(name, field.annotation) for name, field in RunConfig.model_fields.items()]
    return "\n\n".join([*sections, _table("A pool", PoolConfig, "workers.decoders.")])


def updated(page: str) -> str:
    """Return the page with fresh tables between its two markers."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.partition(END)[2]}"


def _section(name: str, annotation: Any) -> str:
    """Return the table of a section, or of one item of a list of sections."""
    if get_origin(annotation) is tuple:
        return _table(name, get_args(annotation)[0], f"{name}[].")
    return _table(name, annotation, f"{name}.")


def _table(title: str, model: Any, prefix: str) -> str:
    head = f"### {title}\n\n{model.__doc__.strip()}\n\n| key | type | default | meaning |\n|---|---|---|---|\n"
    return head + "\n".join(_rows(model, prefix))


def _rows(model: type[BaseModel], prefix: str) -> Iterable[str]:
    for name, field in model.model_fields.items():
        if field.annotation is ManifestColumns:
            yield from _rows(ManifestColumns, f"{prefix}{name}.")
        else:
            cells = (f"`{prefix}{name}`", _kind(field), _default(field), field.description or "")
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _kind(field: FieldInfo) -> str:
    bounds = [_bound(one) for one in field.metadata]
    return ", ".join([_named(field.annotation), *filter(None, bounds)])


def _bound(constraint: object) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    limits = ((sign, getattr(constraint, name, None)) for name, sign in signs.items())
    return ", ".join(f"{sign} {limit}" for sign, limit in limits if limit is not None)


def _named(kind: Any) -> str:
    """Return the name of a type as people write it."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is PoolConfig:
        return "a pool"
    if origin is Annotated:
        return _named(inner[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is tuple:
        return "text or a list"
    if origin in (Union, types.UnionType):
        return " or ".join(map(_named, inner))
    return NAMES[kind]


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    value = field.default
    if isinstance(value, bool | None):
        return {None: "`null`", True: "`true`", False: "`false`"}[value]
    return "`[]`" if value == () else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
