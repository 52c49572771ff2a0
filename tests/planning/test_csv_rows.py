"""CSV files that would fill the memory."""

from pathlib import Path

import pytest

from pipeline.planning import csv_rows
from tests.support.manifests import refusal


@pytest.mark.parametrize("text", ['uri,note\n/a,x\n/b,"' + "y\n" * 200 + '"\n', "uri,note\n/a,x\n/b," + "y" * 300])
def test_a_value_that_does_not_end_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(csv_rows, "VALUE_CHARS", 100)
    monkeypatch.setattr(csv_rows, "BLOCK_CHARS", 10)
    (tmp_path / "m.csv").write_text(text)
    said = refusal(tmp_path, tmp_path / "m.csv")
    assert f"{tmp_path}/m.csv: line 3: " in said
    assert "100 characters" in said
    assert "quote" in said
