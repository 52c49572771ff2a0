"""The recipes of the README and of docs/, as they stand there, on the output that they name."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deltalake import DeltaTable

from pipeline import config
from pipeline.run import run
from tests.support import lakes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_cluster")]

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
DATASETS = {"007", "2024-01-01", "street a/b=c"}


def recipe(title: str, page: str) -> str:
    """The Python block that follows a title."""
    found = re.search(rf"^{re.escape(title)}:\n\n```python\n(.*?)```", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def executed(title: str, folder: str = "", page: str = "output.md") -> dict[str, Any]:
    """What a recipe's names stand for once it has run, on the output below `folder`, else the current one."""
    names: dict[str, Any] = {}
    exec(recipe(title, page).replace('"lakelens-demo', f'"{folder}lakelens-demo'), names)
    return names


@pytest.fixture(scope="module", autouse=True)
def _demo_output(local_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A small output where the README says that the demo's is: 12 ok rows and 3 failed ones."""
    folder = tmp_path_factory.mktemp("readme")
    paths = [*lakes.folder_of_images(folder / "images", 12), *(Path("none") / f"{i}.jpg" for i in range(3))]
    names = sorted(DATASETS)
    rows = [{"uri": str(path.absolute()), "dataset": names[i % 3]} for i, path in enumerate(paths)]
    manifest = lakes.write_manifest(folder / "manifest.parquet", rows)
    output = folder / "lakelens-demo" / "output"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(lakes.settings(manifest, lakes.tiny_vit(folder / "model"), output))
        DeltaTable(str(output / "predictions")).create_checkpoint()  # a Parquet file that is no data
        yield


@pytest.mark.parametrize("page", ["README.md", "output.md"])
def test_duckdb_counts_labels_by_dataset(capsys: pytest.CaptureFixture[str], page: str) -> None:
    executed("DuckDB", page=page)
    shown = capsys.readouterr().out
    assert all(name in shown for name in DATASETS)


def test_polars_reads_the_ok_rows() -> None:
    best = executed("Polars")["best"]
    assert best.height == 12
    assert set(best["dataset"]) == DATASETS
    assert best["label"].null_count() == 0


def test_pandas_and_pyarrow_read_the_failed_rows() -> None:
    failed = executed("pandas and pyarrow")["failed"]
    assert set(failed["error_code"]) == {"not_found"}
    assert set(failed["dataset"]) == DATASETS


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ray_data_reads_the_vectors() -> None:
    # The workers of a cluster that was there before are in another folder.
    vectors = executed("Ray Data", f"{Path.cwd()}/")["vectors"].take_all()
    assert len(vectors) == 12
    assert {len(row["embedding"]) for row in vectors} == {48}


def test_deltalake_reads_every_row() -> None:
    rows = executed("As a Delta table, at any version and while runs go on")["rows"]
    assert rows.num_rows == 15
    assert set(rows["dataset"].to_pylist()) == DATASETS


def test_the_config_in_the_readme_is_valid() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGES["README.md"], flags=re.DOTALL)
    config.parse(yaml.safe_load(block))


def test_the_readme_is_short_and_leads_to_every_page_of_the_docs() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 170
    for page in PAGES.keys() - {"README.md"}:
        assert f"](docs/{page})" in PAGES["README.md"]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_link_leads_to_a_file(page: str) -> None:
    folder = ROOT if page == "README.md" else ROOT / "docs"
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGES[page]) if "://" not in link]
    assert all((folder / link).exists() for link in links), links


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_that_people_copy_is_valid(path: Path) -> None:
    config.load(path)
