"""README.md and docs/: short, complete, without dead links, and with examples that are valid."""

import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

from docs import picture
from jobs.__main__ import COMMANDS
from pipeline import config, schema
from pipeline.errors import ErrorCode
from tests.support.outputs import write_output

ROOT = Path(__file__).parents[2]
README = "README.md"
PAGES = {path.name: path.read_text() for path in (ROOT / README, *(ROOT / "docs").glob("*.md"))}


def anchors(page: str) -> set[str]:
    """The anchors of a page's titles, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", PAGES[page], flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_config_in_the_readme_is_valid() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGES[README], flags=re.DOTALL)
    config.parse(yaml.safe_load(block))
    assert len(block.splitlines()) <= 12


def test_the_readme_is_short_and_leads_to_every_page_of_the_docs() -> None:
    assert len(PAGES[README].splitlines()) <= 170
    for page in PAGES.keys() - {README}:
        assert f"](docs/{page})" in PAGES[README]


def test_the_readme_names_every_command_and_every_column() -> None:
    for command in (name for group in COMMANDS.values() for name in group):
        assert f"lakelens {command}" in PAGES[README]
    for column in schema.PREDICTIONS.names:
        assert f"`{column}`" in PAGES[README]
        assert f"`{column}`" in PAGES["output.md"]


def test_the_page_of_row_errors_names_every_code() -> None:
    for code in ErrorCode:
        assert f"`{code.value}`" in PAGES["row-errors.md"]


def test_the_readmes_query_is_a_recipe() -> None:
    (query,) = re.findall(r"```python\nimport duckdb\n.*?```", PAGES[README], flags=re.DOTALL)
    assert query in PAGES["recipes.md"]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_link_leads_to_a_file_and_a_title(page: str) -> None:
    folder = ROOT if page == README else ROOT / "docs"
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]) if "://" not in link]
    for path, _, anchor in (link.partition("#") for link in links):
        assert (folder / path).exists(), path
        assert not anchor or anchor in anchors(Path(path).name or page), f"{path}#{anchor}"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_that_people_copy_is_valid(path: Path) -> None:
    config.load(path)


def test_the_picture_is_small() -> None:
    assert picture.PAGE.stat().st_size < 200_000


def test_the_picture_is_drawn_from_an_output(tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    Image.new("RGB", (40, 20)).save(image)
    output = write_output(tmp_path / "out", ("a", "b"), uri=str(image))
    labelled, nearest, broken = picture.rows(str(output.path))
    assert [tile[1] for tile in labelled[1]] == ["cat"]
    assert nearest[1][0][1] == "1.000"
    assert [tile[:2] for tile in broken[1]] == [(None, "corrupt")]
    assert picture.sheet([labelled, nearest, broken]).size == (876, 576)
