"""The names that `from pipeline import …` gives, and what importing the package costs."""

import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pipeline import LakeLensError, PlanPreview, RunConfig, Selection, load_config, plan_config
from pipeline.errors import ConfigError
from pipeline.planning.account import Counts
from tests.support import lakes

NAMES = [name for name in pipeline.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(pipeline, name)
    assert inspect.getdoc(found)
    assert name in dir(pipeline)


def test_no_public_name_is_also_that_of_a_module_which_would_hide_it() -> None:
    modules = {module.name for module in pkgutil.iter_modules(pipeline.__path__)}
    assert modules.isdisjoint(NAMES)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        pipeline.nothing  # noqa: B018


def test_importing_the_package_imports_nothing_that_costs_time() -> None:
    script = "import json, sys; import pipeline; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert loaded.isdisjoint({"ray", "torch", "transformers", "pyarrow", "pydantic", "yaml", "duckdb", "numpy"})
    assert {name for name in loaded if name.startswith("pipeline.")} == set()


def test_a_config_comes_from_a_mapping_or_a_file_with_overrides(tmp_path: Path) -> None:
    raw = {"manifest": {"path": "photos"}, "output": {"path": "out"}}
    from_mapping = load_config(raw, ["labels.top_k=3"])
    (tmp_path / "lake.yaml").write_text("manifest: {path: photos}\noutput: {path: out}\n")
    assert isinstance(from_mapping, RunConfig)
    assert load_config(tmp_path / "lake.yaml", ["labels.top_k=3"]) == from_mapping
    assert from_mapping.labels.top_k == 3
    with pytest.raises(ConfigError, match=r"labels\.topk.*labels\.top_k"):
        load_config(raw, ["labels.topk=3"])
    assert issubclass(ConfigError, LakeLensError)


def test_a_plan_counts_what_a_run_would_do_and_writes_nothing(tmp_path: Path) -> None:
    images = lakes.folder_of_images(tmp_path / "images", 5)
    rows = [{"uri": str(path), "dataset": "a"} for path in images] + [{"uri": "", "dataset": "a"}]
    manifest = lakes.write_manifest(tmp_path / "manifest.parquet", rows)
    config = lakes.settings(manifest, lakes.tiny_vit(tmp_path / "model"), tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    found = plan_config(config, selection=Selection(limit=2))
    assert isinstance(found, PlanPreview)
    assert found.account.total == Counts(input=6, invalid=1, left=5)
    assert (found.pending, sum(found.invalid.values()), found.unlisted) == (2, 1, ())
    assert found.output == str(tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before
