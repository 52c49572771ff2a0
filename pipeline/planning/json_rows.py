"""JSON lines to rows of text. A key may first appear in any line, and numbers keep their digits."""

import itertools
import json
import math
from collections.abc import Collection, Iterator
from typing import Any, TextIO

from pipeline.planning.text import BATCH_CHARS, BATCH_ROWS, Rows, TextError

LINE_CHARS = 1 << 28
"""Longest line that is read, so that a file without line ends cannot fill the memory."""


class Decimal(str):
    """A number that is written with a point or an exponent."""

    __slots__ = ()


_CONSTANTS = {"NaN": None, "Infinity": "Infinity", "-Infinity": "-Infinity"}
"""Words that Python writes into JSON but JSON does not have; pandas writes a missing number as NaN."""
_NUMBERS_AS_TEXT = json.JSONDecoder(
    strict=False, parse_int=str, parse_float=Decimal, parse_constant=_CONSTANTS.__getitem__
)
"""Keeps numbers as they are written: 18446744073709551615 and 1.50."""


def _nested_float(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def _nested_integer(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:  # Python converts 4,300 digits at most
        return text


_NESTED = json.JSONDecoder(
    strict=False, parse_int=_nested_integer, parse_float=_nested_float, parse_constant=_CONSTANTS.__getitem__
)
"""Reads only what can be written as JSON again."""


def rows(text: TextIO, wanted: Collection[str]) -> Iterator[Rows]:
    """Yield the rows of a JSON lines file in batches. Blank lines are not rows. Nested values become JSON text.

    Keys that differ only in letter case are one column, as in SQL. `wanted` are the requested columns in lower
    case; an object may have only one spelling of each. Raises: TextError.
    """
    spellings: dict[str, str] = {}
    objects, lines, texts, chars = list[dict[str, Any]](), list[int](), list[str](), 0
    for number, line in _lines(text):
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


def _lines(text: TextIO) -> Iterator[tuple[int, str]]:
    """Yield the lines and their numbers, from 1. Raises: TextError for a line that is too long."""
    for number in itertools.count(1):
        line = text.readline(LINE_CHARS)
        if not line:
            return
        if len(line) == LINE_CHARS and not line.endswith("\n"):
            raise TextError(number, f"it is longer than {LINE_CHARS:,} characters; write each object in a line")
        yield number, line


def _decoded(line: str, number: int) -> dict[str, Any]:
    try:
        found = _NUMBERS_AS_TEXT.decode(line)
    except json.JSONDecodeError as error:
        raise TextError(number, _reason(line, error)) from error
    except RecursionError as error:
        raise TextError(number, "its JSON is nested too deeply") from error
    if isinstance(found, list):
        raise TextError(number, f"it is a JSON array; {_CONVERT_ARRAY}")
    if not isinstance(found, dict):
        raise TextError(number, "it is not a JSON object; write one object in each line")
    return found


_CONVERT_ARRAY = "write one object in each line, as jq -c '.[]' does"


def _reason(line: str, error: json.JSONDecodeError) -> str:
    opening = line.strip()
    if opening.startswith("["):
        return f"it begins a JSON array; {_CONVERT_ARRAY}"
    if opening == "{":
        return "its object goes on in the next line; write each object in one line, as jq -c . does"
    return f"it is not JSON: {error.msg} at character {error.colno}"


def _columns(
    objects: list[dict[str, Any]],
    texts: list[str],
    lines: list[int],
    spellings: dict[str, str],
    wanted: Collection[str],
) -> dict[str, list[str | None]]:
    """Return the values by column. `spellings` has the first spelling of each key, and grows."""
    keys_of: dict[str, list[str]] = {}
    for key in dict.fromkeys(itertools.chain.from_iterable(objects)):
        name = key.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        keys_of.setdefault(spellings.setdefault(name.casefold(), name), []).append(key)
    for name, keys in keys_of.items():
        if len(keys) > 1 and name.casefold() in wanted:
            _require_one(keys, objects, lines)
    return {name: _texts(_values(objects, keys), keys, texts) for name, keys in keys_of.items()}


def _require_one(keys: list[str], objects: list[dict[str, Any]], lines: list[int]) -> None:
    """Raises: TextError for an object that has several of these keys."""
    for found, line in zip(objects, lines, strict=True):
        if len(found.keys() & keys) > 1:
            raise TextError(line, f"it has the keys {' and '.join(map(repr, keys))}; rename one of them")


def _values(objects: list[dict[str, Any]], keys: list[str]) -> list[Any]:
    if len(keys) == 1:
        return [found.get(keys[0]) for found in objects]
    return [next((found[key] for key in keys if found.get(key) is not None), None) for found in objects]


def _texts(values: list[Any], keys: list[str], texts: list[str]) -> list[str | None]:
    """Return values as text. `texts` are their lines, which nested values are read from again."""
    if all(value is None or isinstance(value, str) for value in values):
        return values
    return [_text(value, keys, text) for value, text in zip(values, texts, strict=True)]


def _text(value: Any, keys: list[str], text: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    found = _NESTED.decode(text)  # in `value`, numbers are text already
    nested = next(found[key] for key in keys if found.get(key) is not None)
    return json.dumps(nested, ensure_ascii=False, separators=(",", ":"))
