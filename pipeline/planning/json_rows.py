"""JSON lines -> rows of text. A key may appear first in any line; numbers keep their digits."""

import json
from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any, TextIO

from pipeline.planning.text import BATCH_CHARS, BATCH_ROWS, Rows, TextError


class Decimal(str):
    """A number that is written with a point or an exponent."""

    __slots__ = ()


_PLAIN = json.JSONDecoder(strict=False)
_CONSTANTS = {"NaN": None, "Infinity": "Infinity", "-Infinity": "-Infinity"}
_TEXTUAL = json.JSONDecoder(
    strict=False, parse_int=str, parse_float=Decimal, parse_constant=_CONSTANTS.__getitem__
)
"""With numbers as they are written: 18446744073709551615 and 1.50 stay so. Python writes a missing one as NaN."""


def rows(text: TextIO, wanted: Collection[str]) -> Iterator[Rows]:
    """The rows of a JSON lines file in batches; blank lines are no rows. Nested values become JSON text.

    Keys that differ only in letter case are one column, as SQL has it. An object may have only one spelling of the
    `wanted` columns, which are in lower case. Raises: TextError.
    """
    spellings: dict[str, str] = {}
    objects, lines, texts, chars = list[dict[str, Any]](), list[int](), list[str](), 0
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        objects.append(_decoded(line, number))
        lines.append(number)
        texts.append(line)
        chars += len(line)
        if len(objects) >= BATCH_ROWS or chars >= BATCH_CHARS:
            yield Rows(_columns(objects, texts, lines, spellings, wanted), lines)
            objects, lines, texts, chars = [], [], [], 0
    yield Rows(_columns(objects, texts, lines, spellings, wanted), lines)


def _decoded(line: str, number: int) -> dict[str, Any]:
    try:
        found = _TEXTUAL.decode(line)
    except json.JSONDecodeError as error:
        raise TextError(number, f"it is not JSON: {error.msg} at character {error.colno}") from error
    except RecursionError as error:
        raise TextError(number, "its JSON is nested too deeply") from error
    if not isinstance(found, dict):
        raise TextError(number, "it is not a JSON object; JSON lines have one object in each line")
    return found


def _columns(
    objects: list[dict[str, Any]],
    texts: list[str],
    lines: list[int],
    spellings: dict[str, str],
    wanted: Collection[str],
) -> dict[str, list[str | None]]:
    spelled: dict[str, list[str]] = {}
    for key in dict.fromkeys(chain.from_iterable(objects)):
        name = key.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        spelled.setdefault(spellings.setdefault(name.casefold(), name), []).append(key)
    for name, keys in spelled.items():
        if len(keys) > 1 and name.casefold() in wanted:
            _require_one(keys, objects, lines)
    return {name: _texts(_values(objects, keys), keys, texts, lines) for name, keys in spelled.items()}


def _require_one(keys: list[str], objects: list[dict[str, Any]], lines: list[int]) -> None:
    """Raises: TextError for an object that has several of these keys."""
    for found, line in zip(objects, lines, strict=True):
        if len(found.keys() & keys) > 1:
            raise TextError(line, f"it has the keys {' and '.join(map(repr, keys))}; rename one of them")


def _values(objects: list[dict[str, Any]], keys: list[str]) -> list[Any]:
    if len(keys) == 1:
        return [found.get(keys[0]) for found in objects]
    return [next((found[key] for key in keys if found.get(key) is not None), None) for found in objects]


def _texts(values: list[Any], keys: list[str], texts: list[str], lines: list[int]) -> list[str | None]:
    """Values as text; those of nested objects anew from their line, where numbers were not text yet."""
    if all(value is None or isinstance(value, str) for value in values):
        return values
    return [_text(value, keys, text, line) for value, text, line in zip(values, texts, lines, strict=True)]


def _text(value: Any, keys: list[str], text: str, line: int) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        found = _PLAIN.decode(text)
    except ValueError as error:  # a number of thousands of digits
        raise TextError(line, f"its JSON cannot be read: {error}") from error
    nested = next(found[key] for key in keys if found.get(key) is not None)
    return json.dumps(nested, ensure_ascii=False, separators=(",", ":"))
