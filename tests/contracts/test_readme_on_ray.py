"""The README's Python, and the recipe for Ray Data, as they stand there."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.summary import Summary
from tests.support import lakes
from tests.support.outputs import write_output

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_cluster")]

ROOT = Path(__file__).parents[2]


def executed(page: str, first_line: str) -> dict[str, Any]:
    """The variables of the Python block that starts with this line, once it has run."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (block,) = re.findall(rf"```python\n({re.escape(first_line)}\n.*?)```", text, flags=re.DOTALL)
    names: dict[str, Any] = {}
    # The workers of a cluster that was there before are in another folder.
    exec(block.replace('"lakelens-demo', f'"{Path.cwd()}/lakelens-demo'), names)
    return names


def test_the_readmes_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = lakes.folder_of_images(tmp_path / "images", 3)
    rows = [{"uri": str(path)} for path in [*images, Path("none.jpg")]]
    manifest = lakes.write_manifest(tmp_path / "manifest.parquet", rows)
    settings = lakes.settings(manifest, lakes.tiny_vit(tmp_path / "model"), tmp_path / "out")
    (tmp_path / "lakelens-demo").mkdir()
    (tmp_path / "lakelens-demo" / "demo.yaml").write_text(settings.to_yaml())
    names = executed("README.md", "from pipeline import load_config, plan_config, run_config")
    summary = names["summary"]
    assert isinstance(summary, Summary)
    assert (summary.account.total.ok, summary.account.total.failed) == (3, 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ray_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    output = write_output(tmp_path / "lakelens-demo" / "output", ("007", "42"))
    names = executed("docs/recipes.md", "import ray")
    found = {row["image_id"]: list(row["embedding"]) for row in names["vectors"].take_all()}
    assert found == output.vectors
    assert {row["dataset"] for row in names["predictions"].take_all()} == {"007", "42"}
    assert "caption" in names["predictions"].columns()
