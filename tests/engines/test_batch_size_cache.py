"""Batch sizes that outlive the predictor that found them."""

import os
import time
from pathlib import Path

import pytest

from pipeline.engines.batch_size_cache import MAX_AGE_S, BatchSizeCache
from pipeline.engines.batch_sizer import SettledSize


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAKELENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_predictor_loads_the_size_that_another_one_of_its_kind_stored() -> None:
    assert BatchSizeCache("model", "H100", "bf16").load() is None
    BatchSizeCache("model", "H100", "bf16").store(SettledSize(64, 256))
    assert BatchSizeCache("model", "H100", "bf16").load() == SettledSize(64, 256)
    assert BatchSizeCache("model", "H100", "fp16").load() is None
    assert BatchSizeCache("other", "H100", "bf16").load() is None


def test_a_search_that_has_not_ended_is_not_stored(cache: Path) -> None:
    BatchSizeCache("model").store(None)
    assert not cache.exists()


def test_only_a_size_that_has_changed_is_written(cache: Path) -> None:
    sizes = BatchSizeCache("model")
    sizes.store(SettledSize(8))
    (file,) = (cache / "batch-sizes").iterdir()
    file.unlink()
    sizes.store(SettledSize(8))
    assert not file.exists()
    sizes.store(SettledSize(16))
    assert file.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"size": 8, "colour": 1}'])
def test_a_damaged_file_is_ignored(text: str, cache: Path) -> None:
    BatchSizeCache("model").store(SettledSize(8))
    (file,) = (cache / "batch-sizes").iterdir()
    file.write_text(text)
    assert BatchSizeCache("model").load() is None


def test_an_old_file_is_ignored(cache: Path) -> None:
    BatchSizeCache("model").store(SettledSize(8))
    (file,) = (cache / "batch-sizes").iterdir()
    os.utime(file, (time.time() - MAX_AGE_S - 1,) * 2)
    assert BatchSizeCache("model").load() is None


def test_a_cache_that_cannot_be_written_is_ignored(cache: Path) -> None:
    cache.write_text("a file in its place")
    BatchSizeCache("model").store(SettledSize(8))
    assert BatchSizeCache("model").load() is None
