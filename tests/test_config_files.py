"""Config files: an error names the file, and the line or the key."""

from pathlib import Path

import pytest

from pipeline.config import load
from pipeline.errors import ConfigError


def test_a_config_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file or directory\.$"):
        load(tmp_path / "nowhere.yaml")


def test_a_config_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00\x9c")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "c.yaml")


def test_broken_yaml_names_the_file_and_the_line(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("manifest: {path: a}\noutput: [\n")
    with pytest.raises(ConfigError, match=r"c\.yaml as YAML at line 3"):
        load(tmp_path / "c.yaml")


def test_a_mistake_in_a_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("manifest: {path: a}\noutput: {pth: b}\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: .*output\.path"):
        load(tmp_path / "c.yaml")


def test_yaml_can_not_make_python_objects(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("manifest: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError):
        load(tmp_path / "c.yaml")
