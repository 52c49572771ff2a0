"""Heads that a config names: their labels are as new as the predictions after each run."""

from pathlib import Path

import pytest

from pipeline import config
from pipeline.errors import ConfigError, HeadError
from pipeline.labels import head as heads
from pipeline.run import run
from tests.labels.conftest import head
from tests.support import lakes
from tests.support.making import STORAGE


def test_a_config_lists_heads_by_their_folders() -> None:
    made = {
        "manifest": {"path": "m"},
        "output": {"path": "o"},
        "heads": [{"path": "heads/a"}, {"path": "b", "name": "c"}],
    }
    found = config.parse(made).heads
    assert [(one.path, one.name) for one in found] == [("heads/a", None), ("b", "c")]
    assert config.parse_text(config.parse(made).to_yaml(), source="again").heads == found
    with pytest.raises(ConfigError, match=r"heads.*pat"):
        config.parse({**made, "heads": [{"pat": "a"}]})


def test_a_head_of_another_space_stops_a_run_before_it_begins(tmp_path: Path) -> None:
    heads.save(head(fingerprint="other"), str(tmp_path / "species"), STORAGE)
    (tmp_path / "lake").mkdir()
    lakes.folder_of_images(tmp_path / "lake", 2)
    settings = lakes.settings(
        str(tmp_path / "lake"), str(lakes.tiny_vit(tmp_path / "model")), str(tmp_path / "out")
    )
    named = config.HeadConfig(path=str(tmp_path / "species"))
    with pytest.raises(HeadError, match=r"space other"):
        run(settings.model_copy(update={"heads": (named,)}))
    assert not (tmp_path / "out").exists()
