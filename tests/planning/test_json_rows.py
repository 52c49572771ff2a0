"""JSON lines as people and programs write them."""

import json
from pathlib import Path

import pytest

from pipeline.config import ManifestColumns
from pipeline.planning import json_rows
from tests.support.manifests import read, refusal

NESTED_IDS = {"7.0": "7", "7": "7", "1e3": "1000", "7.5": "7.5", '"7.0"': "7.0", "-0.0": "0", "1e999": "1e999"}


@pytest.mark.parametrize("written", NESTED_IDS)
def test_an_id_in_an_object_is_the_same_text_as_one_that_is_not(tmp_path: Path, written: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(f'{{"uri": "/a", "m": {{"id": {written}, "set": {written}}}}}\n')
    columns = ManifestColumns(image_id="m.id", dataset="m.set")
    (row,) = read(tmp_path, path, columns=columns).to_pylist()
    assert (row["image_id"], row["dataset"]) == (NESTED_IDS[written],) * 2


def test_a_row_without_the_object_that_holds_its_id_has_the_default_id(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"uri": "/a", "m": {"id": 7.0}}\n{"uri": "/b", "m": "no object"}\n{"uri": "/c"}\n')
    rows = read(tmp_path, path, columns=ManifestColumns(image_id="m.id"))
    assert rows.column("image_id").to_pylist() == ["7", "/b", "/c"]


def test_what_json_has_no_word_for_is_kept_as_json(tmp_path: Path) -> None:
    digits = "9" * 5000
    path = tmp_path / "m.jsonl"
    path.write_text(f'{{"uri": "/a", "k": [NaN, Infinity, 1e999, {digits}, 1.5]}}\n')
    (row,) = read(tmp_path, path, keep=("k",)).to_pylist()

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(row["k"], parse_constant=refuse) == [None, "Infinity", "1e999", digits, 1.5]


@pytest.mark.parametrize(
    ("text", "advice"), [('[{"uri": "/a"}]\n', "jq -c '.[]'"), ('{\n  "uri": "/a"\n}\n', "jq -c .")]
)
def test_other_json_is_refused_with_a_way_to_convert_it(tmp_path: Path, text: str, advice: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(text)
    said = refusal(tmp_path, path)
    assert f"{path}: line 1: " in said
    assert advice in said


def test_a_line_that_does_not_end_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "LINE_CHARS", 100)
    path = tmp_path / "m.jsonl"
    path.write_text('{"uri": "/a"}\n' + json.dumps({"uri": "/" + "b" * 200}))
    said = refusal(tmp_path, path)
    assert f"{path}: line 2: " in said
    assert "100 characters" in said
