"""The failed rows of an output, over a real table; no run is needed for it."""

from pathlib import Path

import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from jobs import errors as command
from pipeline.errors import ConfigError, TableError
from pipeline.output import failed_rows
from pipeline.output.failed_rows import Failures
from pipeline.output.table import Predictions
from tests.support.making import STORAGE, write_fragment


@pytest.fixture
def output(tmp_path: Path) -> str:
    """Three failed rows of two datasets, committed, and one that is not."""
    out = str(tmp_path / "my out")
    table = Predictions.create(out, STORAGE, [])
    epoch = table.claim("run", [])
    assert epoch is not None
    fragments = [write_fragment(out, "007", ["a", "b"], epoch), write_fragment(out, "50% off/x=y", ["c"], epoch)]
    table.commit(fragments, "run", epoch)
    write_fragment(out, "007", ["never committed"], epoch)
    return out


def test_failed_rows_are_counted_by_dataset_stage_and_code(output: str) -> None:
    found = failed_rows.count_failures(output, STORAGE)
    assert found == [
        Failures("007", "decode", "corrupt", 2, ("u", "u")),
        Failures("50% off/x=y", "decode", "corrupt", 1, ("u",)),
    ]


@pytest.mark.parametrize("name", ["failed.parquet", "failed.csv"])
def test_failed_rows_are_exported_for_use_as_a_manifest(name: str, output: str, tmp_path: Path) -> None:
    out = tmp_path / "exports" / name
    assert failed_rows.export(output, str(out), STORAGE) == 3
    types = pc.ConvertOptions(column_types={"dataset": "string"})
    table = pq.read_table(out) if out.suffix == ".parquet" else pc.read_csv(out, convert_options=types)
    assert table.column_names == list(failed_rows.EXPORTED)
    assert table.column("image_id").to_pylist() == ["a", "b", "c"]
    assert table.column("dataset").to_pylist() == ["007", "007", "50% off/x=y"]


def test_an_export_of_another_format_is_one_sentence(output: str) -> None:
    with pytest.raises(ConfigError, match=r"^--export x\.json must end in \.parquet or \.csv\.$"):
        failed_rows.export(output, "x.json", STORAGE)


def test_an_output_without_predictions_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"^There are no predictions at .*\.$"):
        failed_rows.count_failures(str(tmp_path), STORAGE)


def test_an_output_without_failures_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Predictions.create(str(tmp_path), STORAGE, [])
    assert failed_rows.count_failures(str(tmp_path), STORAGE) == []
    assert failed_rows.export(str(tmp_path), str(tmp_path / "none.csv"), STORAGE) == 0
    command.main(str(tmp_path))
    assert capsys.readouterr().out == "No rows have failed.\n"


def test_the_command_shows_examples_of_each_and_nothing_that_steers_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "s3://lake/" + "long/" * 30 + "name.jpg"
    found = [Failures("pho\x1b[2Jtos", "decode", "corrupt", 1200, (uri, "a\nb", "https://u:p@host/x?Signature=y"))]
    monkeypatch.setattr(failed_rows, "count_failures", lambda output, storage: found)
    command.main("anywhere")
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["dataset", "rows", "stage", "code", "examples"]
    assert row.split() == [r"pho\x1b[2Jtos", "1,200", "decode", "corrupt", uri, r"a\nb", "https://host/x"]
