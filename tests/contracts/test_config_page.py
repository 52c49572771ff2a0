"""docs/config.md: its tables say what `RunConfig` says, and its examples are valid."""

import re
from collections.abc import Iterator

import pytest
import yaml

from docs.config_page import BEGIN, END, PAGE, updated
from pipeline import config, suggestions
from pipeline.config import PoolConfig, RunConfig

TEXT = PAGE.read_text(encoding="utf-8")
TABLES = TEXT.partition(BEGIN)[2].partition(END)[0]
LEAST = {"manifest": {"path": "m.csv"}, "output": {"path": "out"}}
LISTS = {"heads": [{"path": "heads/species"}]}


def keys(values: object, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a nested mapping, without its inner nodes; `[]` stands for an item of a list."""
    if isinstance(values, tuple) and values and isinstance(values[0], dict):
        yield from keys(values[0], f"{prefix}[]")
        return
    if not isinstance(values, dict):
        yield prefix
        return
    for name, value in values.items():
        yield from keys(value, f"{prefix}.{name}" if prefix else name)


def test_the_page_is_up_to_date() -> None:
    assert updated(TEXT) == TEXT, "run `python -m docs.config_page`"


@pytest.mark.parametrize("key", list(keys(config.parse(LEAST | LISTS).model_dump())))
def test_every_key_has_a_row_with_type_default_and_meaning(key: str) -> None:
    row = re.search(rf"^\| `{re.escape(key)}` \| (.+) \| (.+) \| (.+\.) \|$", TABLES, flags=re.MULTILINE)
    assert row, key


def test_a_pool_has_its_rows() -> None:
    for name in PoolConfig.model_fields:
        assert f"| `workers.decoders.{name}` |" in TABLES


def test_every_default_of_the_tables_is_the_configs() -> None:
    given = config.parse(LEAST).model_dump(mode="json")
    rows = re.findall(r"^\| `([\w.]+)` \| .+? \| `(.+?)` \|", TABLES, flags=re.MULTILINE)
    assert len(rows) > 40
    for key, default in rows:
        *parents, name = key.split(".")
        if suggestions.fields(RunConfig, parents) is PoolConfig.model_fields:
            continue
        section = given
        for parent in parents:
            section = section[parent]
        assert yaml.safe_load(default) == section[name], key


def test_the_examples_are_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        config.parse(yaml.safe_load(block))


def test_the_overrides_of_the_page_are_valid() -> None:
    overrides = re.findall(r"--set '?([a-z._]+=[^\s']+)", TEXT)
    assert len(overrides) >= 3
    config.parse(LEAST, overrides)
