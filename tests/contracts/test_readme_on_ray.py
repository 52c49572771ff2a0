"""The Python of the README and of its page in the docs, and the recipe for Ray Data, as they stand there."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support import lakes
from tests.support.outputs import write_output

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_cluster")]

ROOT = Path(__file__).parents[2]


def blocks(page: str, first_line: str) -> list[str]:
    """A page's Python blocks, from the one that starts with this line."""
    found: list[str] = re.findall(
        r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL
    )
    first = next(number for number, block in enumerate(found) if block.startswith(first_line))
    return found[first:]


def executed(*of_a_page: str) -> dict[str, Any]:
    """The variables of Python blocks once they have run, one after the other."""
    names: dict[str, Any] = {}
    for block in of_a_page:
        # The workers of a cluster that was there before are in another folder.
        exec(block.replace('"lakelens-demo', f'"{Path.cwd()}/lakelens-demo'), names)
    return names


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pages have of the demo: its config, here of three good images and a missing one."""
    monkeypatch.chdir(tmp_path)
    images = lakes.folder_of_images(tmp_path / "images", 3)
    names = ("007", "catalog", "catalog", "street")
    rows = [{"uri": str(path), "dataset": name} for path, name in zip([*images, "none.jpg"], names, strict=True)]
    manifest = lakes.write_manifest(tmp_path / "manifest.parquet", rows)
    output = tmp_path / "lakelens-demo" / "output"
    settings = lakes.settings(manifest, lakes.tiny_vit(tmp_path / "model"), output)
    output.parent.mkdir()
    (output.parent / "demo.yaml").write_text(settings.to_yaml())


@pytest.mark.usefixtures("demo")
def test_the_readmes_python() -> None:
    names = executed(blocks("README.md", "from pipeline import")[0])
    total = names["summary"].account.total
    assert (total.ok, total.failed) == (3, 1)
    assert set(names["rows"]["dataset"]) == {"007", "catalog"}
    assert len(names["rows"]["embedding"][0]) == 48


@pytest.mark.usefixtures("demo")
def test_the_page_on_python() -> None:
    names = executed(*blocks("docs/python.md", "from pipeline import"))
    assert names["plan"].pending == 4
    assert names["summary"].account.total.failed == 1
    assert names["again"].run_id is None
    assert names["space"].datasets == ["007", "catalog", "street"]
    assert list(names["why"]["error_code"]) == ["not_found"]
    assert names["batch"].num_rows == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ray_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    output = write_output(tmp_path / "lakelens-demo" / "output", ("007", "42"))
    names = executed(blocks("docs/recipes.md", "import ray")[0])
    found = {row["image_id"]: list(row["embedding"]) for row in names["vectors"].take_all()}
    assert found == output.vectors
    assert {row["dataset"] for row in names["predictions"].take_all()} == {"007", "42"}
    assert "caption" in names["predictions"].columns()
