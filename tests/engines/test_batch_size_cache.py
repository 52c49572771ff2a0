"""Batch sizes that outlive the predictor that found them."""

import os
import time
from pathlib import Path

import pytest

from pipeline.engines.batch_size_cache import KEPT_S, Shelf
from pipeline.engines.batching import Learned


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAKELENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_one_predictor_found_the_next_of_its_kind_takes() -> None:
    assert Shelf("model", "H100", "bf16").take() is None
    Shelf("model", "H100", "bf16").put(Learned(64, 256))
    assert Shelf("model", "H100", "bf16").take() == Learned(64, 256)
    assert Shelf("model", "H100", "fp16").take() is None
    assert Shelf("other", "H100", "bf16").take() is None


def test_a_search_that_has_not_ended_is_not_kept(cache: Path) -> None:
    Shelf("model").put(None)
    assert not cache.exists()


def test_only_news_is_written(cache: Path) -> None:
    shelf = Shelf("model")
    shelf.put(Learned(8))
    (file,) = (cache / "batch-sizes").iterdir()
    file.unlink()
    shelf.put(Learned(8))
    assert not file.exists()
    shelf.put(Learned(16))
    assert file.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"size": 8, "colour": 1}'])
def test_a_damaged_one_is_none(text: str, cache: Path) -> None:
    Shelf("model").put(Learned(8))
    (file,) = (cache / "batch-sizes").iterdir()
    file.write_text(text)
    assert Shelf("model").take() is None


def test_an_old_one_is_none(cache: Path) -> None:
    Shelf("model").put(Learned(8))
    (file,) = (cache / "batch-sizes").iterdir()
    os.utime(file, (time.time() - KEPT_S - 1,) * 2)
    assert Shelf("model").take() is None


def test_a_cache_that_cannot_be_written_is_done_without(cache: Path) -> None:
    cache.write_text("a file in its place")
    Shelf("model").put(Learned(8))
    assert Shelf("model").take() is None
