"""An output opened from Python: its description, its counts, and its rows in several libraries' tables."""

import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from pipeline import schema
from pipeline.errors import ConfigError, SpaceError, TableError
from pipeline.face.opened_space import Space, open_space
from pipeline.output import space as spaces
from pipeline.output.failed_rows import EXPORTED
from pipeline.output.layout import Layout
from tests.support import outputs
from tests.support.making import STORAGE
from tests.support.outputs import DIM, FAILED_ROWS, OK_ROWS, Output

NAMES = ("007", "2024-01-01", "street a b")
DESCRIPTION = {"fingerprint": "f" * 16, "model": "tiny", "dim": DIM, "labels": ["cat", "dog"]}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    written = outputs.write_output(tmp_path_factory.mktemp("opened") / "out", NAMES)
    Path(Layout(str(written.path)).space).unlink(missing_ok=True)
    spaces.claim(str(written.path), DESCRIPTION, STORAGE)
    return written


@pytest.fixture
def opened(output: Output) -> Space:
    return open_space(str(output.path))


def test_a_space_says_what_it_holds(opened: Space, output: Output) -> None:
    assert (opened.description.model, opened.description.dim) == ("tiny", DIM)
    assert (opened.path, opened.datasets) == (str(output.path), list(NAMES))
    assert sum(count.rows for count in opened.counts()) == output.rows


def test_rows_are_the_ok_ones_unless_asked_otherwise(opened: Space, output: Output) -> None:
    assert opened.to_arrow().num_rows == output.ok_rows
    assert opened.to_arrow(["image_id"], outcome=None).num_rows == output.rows
    assert opened.to_arrow(["image_id"], outcome="failed", datasets=["007"]).num_rows == FAILED_ROWS


def test_pandas_and_polars_have_the_rows_with_datasets_as_text(opened: Space, output: Output) -> None:
    chosen = {"columns": ["image_id", "dataset", "embedding"], "datasets": ["007"], "where": "score > 0.5"}
    frame, polars_frame = opened.to_pandas(**chosen), opened.to_polars(**chosen)
    assert list(frame["dataset"]) == ["007"] * OK_ROWS
    assert all(
        output.vectors[id_] == list(vector)
        for id_, vector in zip(frame["image_id"], frame["embedding"], strict=True)
    )
    assert isinstance(polars_frame, pl.DataFrame)
    assert polars_frame["image_id"].to_list() == list(frame["image_id"])
    assert polars_frame.schema["dataset"] == pl.String


def test_batches_do_not_hold_more_rows_than_asked_for(opened: Space, output: Output) -> None:
    sizes = [batch.num_rows for batch in opened.iter_batches(["embedding"], batch_rows=4)]
    assert max(sizes) <= 4
    assert sum(sizes) == output.ok_rows


def test_failed_rows_say_why_and_can_serve_as_a_manifest(opened: Space) -> None:
    rows = opened.failed_rows()
    assert rows.column_names == list(EXPORTED)
    assert rows.num_rows == len(NAMES) * FAILED_ROWS
    assert {failures.error_code for failures in opened.failures()} == {"corrupt"}


def test_without_polars_the_message_says_what_to_install(opened: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ConfigError, match="pip install polars"):
        opened.to_polars()


def test_absent_and_damaged_outputs_are_one_sentence(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    with pytest.raises(SpaceError, match=r"out/space\.json"):
        open_space(out)
    spaces.claim(out, DESCRIPTION, STORAGE)
    with pytest.raises(TableError, match=out):
        open_space(out)
    Path(Layout(out).space).write_text("{")
    with pytest.raises(SpaceError, match=r"out/space\.json"):
        open_space(out)
    Path(Layout(out).space).write_text('{"format": 99}')
    with pytest.raises(SpaceError, match=r"out/space\.json.*format 99"):
        open_space(out)


def test_a_damaged_log_is_one_sentence(tmp_path: Path, output: Output) -> None:
    copied = shutil.copytree(output.path, tmp_path / "out")
    log = Path(Layout(str(copied)).log_entry(0)).parent
    for entry in log.iterdir():
        if entry.is_file():
            entry.write_text("no log")
    with pytest.raises(TableError, match=str(copied)):
        open_space(str(copied))


def test_reading_starts_neither_ray_nor_torch(output: Output) -> None:
    script = f"import sys; from pipeline import open_space; open_space({str(output.path)!r}).to_arrow(); "
    script += "print(sorted({'ray', 'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_columns_of_an_output_are_those_of_the_schema(opened: Space) -> None:
    assert opened.to_arrow().schema.equals(schema.predictions([outputs.CAPTION]))
