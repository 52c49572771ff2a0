"""Labels of a head, used: in conditions, from Python, by the commands, and by maintenance."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from pipeline.errors import ConfigError, TableError
from pipeline.face.opened_space import open_space
from pipeline.labels import head as heads
from pipeline.output import maintenance
from tests.labels.conftest import head
from tests.labels.test_relabelling import assert_complete, labels, relabelled
from tests.support import commands
from tests.support.histories import History
from tests.support.making import STORAGE


def test_conditions_and_columns_can_name_the_labels_of_a_head(history: History, saved: str) -> None:
    relabelled(history, saved)
    relabelled(history, saved, name="other-head")
    history.run(ok="n")
    true = {id_: row["label"] for id_, row in labels(history).items()}
    reader = history.reader()
    columns = ["image_id", "label", "species.label", "species.score", "other-head.label"]
    rows = {row["image_id"]: row for row in reader.to_arrow(columns).to_pylist()}
    assert {id_: row["species.label"] for id_, row in rows.items()} == {**true, "n": None, "x": None}
    assert {row["other-head.label"] == row["species.label"] for row in rows.values()} == {True}
    owls = [id_ for id_, label in true.items() if label == "owl"]
    assert owls
    for where in ("species.label = 'owl'", "\"other-head\".label = 'owl' AND species.score > 0"):
        found = reader.to_arrow(["image_id", "label"], where=where)
        assert sorted(found["image_id"].to_pylist()) == sorted(owls)
        assert reader.count(where) == len(owls)
        assert reader.sample(99, 0, ["image_id"], where=where).num_rows == len(owls)


def test_the_recipes_of_the_page_on_labels_find_the_same_rows(history: History, saved: str) -> None:
    relabelled(history, saved)
    owls = {id_ for id_, row in labels(history).items() if row["label"] == "owl"}
    page = (Path(__file__).parents[2] / "docs" / "labels.md").read_text(encoding="utf-8")
    recipes = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "owls" in code]
    assert len(recipes) == 3
    for code in recipes:
        names: dict[str, Any] = {}
        exec(code.replace("OUTPUT", str(history.path)), names)
        found = names["owls"]["image_id"] if "space" in names else [row[0] for row in names["owls"]]
        assert {*found} == owls, code


def test_a_head_without_labels_here_is_an_unknown_column(history: History) -> None:
    with pytest.raises(TableError, match=r"no column 'species\.label'"):
        history.reader().to_arrow(["species.label"])
    with pytest.raises(ConfigError, match="species"):
        history.reader().count("species.label = 'owl'")


def test_a_space_gives_the_labels_of_a_head_and_names_those_it_has(history: History, saved: str) -> None:
    relabelled(history, saved)
    space = open_space(str(history.path))
    assert {row["image_id"]: row for row in space.labels("species").to_pylist()} == labels(history)
    with pytest.raises(TableError, match=r"'birds'; it has species\."):
        space.labels("birds")


def test_the_commands_make_measure_compare_and_use_heads(
    history: History, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lakelens = partial(commands.lakelens, monkeypatch=monkeypatch)
    out, truth, fitted = str(history.path), tmp_path / "truth.csv", str(tmp_path / "fitted")
    classes = {id_: "cat" if id_ < "g" else "dog" for id_ in "abcdefghijkl"}
    truth.write_text("image_id,label\n" + "".join(f"{id_},{label}\n" for id_, label in classes.items()))
    assert lakelens("head", "fit", out, "--truth", str(truth), "--out", fitted) == 0
    assert "accuracy" in capsys.readouterr().out
    assert lakelens("relabel", out, "--head", fitted, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 12
    assert lakelens("head", "measure", out, "--head", fitted, "--truth", str(truth)) == 0
    assert "12 images" in capsys.readouterr().out
    heads.save(head(), str(tmp_path / "third"), STORAGE)
    export = str(tmp_path / "margins.csv")
    assert lakelens("head", "compare", out, fitted, str(tmp_path / "third"), "--export", export) == 0
    assert "of 12 images have different labels" in capsys.readouterr().out
    assert Path(export).read_text().startswith('"image_id"')
    assert lakelens("head", "words", out, "--classes", "cat,dog", "--out", fitted) == 2
    assert "no text encoder" in capsys.readouterr().err


def test_a_vacuum_deletes_superseded_files_of_labels_and_no_file_that_a_relabelling_may_commit(
    history: History, saved: str
) -> None:
    relabelled(history, saved)
    heads.save(head(seed=1), saved, STORAGE)
    relabelled(history, saved)
    folder = history.path / "labels" / "species"
    working = folder / "dataset=street" / "1-abc-0.parquet"
    working.write_bytes(b"being written")
    seen = {*DeltaTable(str(folder)).file_uris()}
    assert len([*folder.glob("*/*.parquet")]) == 5
    found = maintenance.vacuum(str(history.path), STORAGE)
    assert (found.files, {str(path) for path in folder.glob("*/*.parquet")}) == (2, {*seen, str(working)})
    assert_complete(history, head(seed=1))


def test_the_history_of_a_head_names_versions_and_heads(
    history: History, saved: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    relabelled(history, saved)
    assert commands.lakelens("history", history.path, "--head", "species", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert head().sha256 in shown
    assert str(history.version) in shown
