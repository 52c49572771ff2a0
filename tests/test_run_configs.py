"""The config of an earlier run, read from where someone else is."""

from pathlib import Path

import pytest

from pipeline import run_configs
from pipeline.config import StorageConfig
from pipeline.errors import TableError
from pipeline.output.layout import Layout
from pipeline.storage.filesystems import Storage
from tests.support import lakes
from tests.support.making import STORAGE


def test_the_stores_that_are_named_now_replace_those_of_the_run(tmp_path: Path) -> None:
    of_run = ("storage.endpoint_url=http://inside:9000", "storage.region=eu-west-3")
    written = lakes.settings("m.parquet", "model", str(tmp_path), *of_run)
    STORAGE.write(Layout(str(tmp_path)).run("r").config, written.to_yaml().encode())
    assert run_configs.read(str(tmp_path), STORAGE, "r") == written
    here = Storage(StorageConfig(endpoint_url="http://outside:9000"))
    found = run_configs.read(str(tmp_path), here, "r").storage
    assert (found.endpoint_url, found.region) == ("http://outside:9000", "eu-west-3")
    with pytest.raises(TableError, match=r"runs/other/config\.yaml is gone"):
        run_configs.read(str(tmp_path), STORAGE, "other")
