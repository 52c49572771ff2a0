"""Exports of changes: whoever applies them has the rows that the table has."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from pipeline.errors import ConfigError, VersionGoneError
from pipeline.export.summary import DELETES, EXPORT, UPSERTS
from pipeline.face.opened_space import open_space
from tests.export.conftest import described
from tests.support.histories import STEPS, History, Step, play

HISTORIES = 200 if "LAKELENS_EVERY_STEP" in os.environ else 4
WHERE = "run_id NOT IN ('run-002', 'run-004') AND image_id <> 'a'"


def export(history: History, out: Path, **options: Any) -> Path:
    """Export the newest version; returns the folder."""
    open_space(str(history.path)).export(str(out), **options)
    return out


def rows_of(folder: Path) -> dict[tuple[str, str], str]:
    """The run of each row by its namespace, "" if there are none, and its id."""
    found = {}
    for file in folder.glob("**/*.parquet"):
        namespace = unquote(file.parent.name) if file.parent != folder else ""
        for row in pq.read_table(file, partitioning=None).to_pylist():
            id_ = row.get("id") or row["image_id"]
            found[namespace, id_] = (
                json.loads(row["metadata"])["run_id"] if "metadata" in row else row.get("run_id", "")
            )
    return found


def applied(copy: dict[tuple[str, str], str], folder: Path) -> dict[tuple[str, str], str]:
    """The copy of a target, after the changes in the folder."""
    upserts, deletes = rows_of(folder / UPSERTS), rows_of(folder / DELETES)
    assert not upserts.keys() & deletes.keys()
    return {key: run for key, run in {**copy, **upserts}.items() if key not in deletes}


def test_changes_are_upserts_and_deletes_and_the_version_to_go_on_from(history: History, tmp_path: Path) -> None:
    before = history.version
    history.run(ok="be", failed="c")
    out = export(history, tmp_path / "new", since=before, columns=["image_id", "run_id"])
    assert rows_of(out / UPSERTS) == {("", "b"): "run-002", ("", "e"): "run-002"}
    assert pq.read_table(out / DELETES / "0.parquet").to_pylist() == [{"image_id": "c"}]
    held = json.loads((out / EXPORT).read_text())
    assert (held["since"], held["version"], held["rows"], held["deletes"]) == (before, history.version, 2, 1)


def test_a_row_that_no_longer_meets_the_condition_is_a_delete(history: History, tmp_path: Path) -> None:
    full = export(history, tmp_path / "full", where=WHERE, columns=["image_id", "run_id"])
    history.run(ok="be", failed="c")
    out = export(history, tmp_path / "new", since=str(full), where=WHERE, columns=["image_id", "run_id"])
    assert rows_of(out / UPSERTS) == {}
    assert {id_ for _, id_ in rows_of(out / DELETES)} == {"b", "c", "e"}
    assert applied(rows_of(full), out) == {("", "d"): "run-001"}


def test_a_dataset_that_a_row_has_left_gets_a_delete_in_its_namespace(history: History, tmp_path: Path) -> None:
    options = {"importer": "pinecone", "columns": ["image_id", "run_id"]}
    full = export(history, tmp_path / "full", **options)
    history.delete_by_other_program("a")
    history.run(ok="a", dataset="..")
    out = export(history, tmp_path / "new", since=str(full), **options)
    assert {("..", "a"): "run-002"}.items() <= rows_of(out / UPSERTS).items()
    assert rows_of(out / DELETES) == {("street", "a"): ""}
    assert (out / UPSERTS / "%2E%2E" / "0.parquet").exists()
    assert {key for key in applied(rows_of(full), out)} == {
        ("..", "a"),
        ("street", "b"),
        ("street", "c"),
        ("street", "d"),
    }


def test_other_formats_have_upserts_and_deletes_as_well(history: History, tmp_path: Path) -> None:
    before = history.version
    history.run(ok="be", failed="c")
    lines = export(history, tmp_path / "lines", since=before, to="jsonl")
    assert json.loads((lines / DELETES / "0.jsonl").read_text()) == {"image_id": "c"}
    assert len((lines / UPSERTS / "0.jsonl").read_text().splitlines()) == 2
    arrays = export(history, tmp_path / "arrays", since=before, to="npy")
    names = sorted(str(path.relative_to(arrays)) for path in arrays.glob("*/**/*.*"))
    assert names == ["deletes/0.parquet", "upserts/img_emb/img_emb_0.npy", "upserts/metadata/metadata_0.parquet"]


def test_without_changes_an_export_is_whole_and_has_no_files(history: History, tmp_path: Path) -> None:
    out = export(history, tmp_path / "new", since=history.version)
    assert [path.name for path in out.iterdir()] == [EXPORT]


def test_a_version_that_is_gone_asks_for_all_rows(history: History, tmp_path: Path) -> None:
    before = history.version
    history.run(failed="a")
    history.vacuum()
    with pytest.raises(VersionGoneError, match="Export all rows: leave --since out"):
        export(history, tmp_path / "new", since=before)


def test_an_earlier_export_of_other_rows_or_of_another_table_is_refused(history: History, tmp_path: Path) -> None:
    full = export(history, tmp_path / "full")
    with pytest.raises(ConfigError, match=r"has where None, but this one would have 'score > 0.5'"):
        export(history, tmp_path / "new", since=str(full), where="score > 0.5")
    other = History(tmp_path / "other")
    other.run(ok="abcd")
    described(other.path)
    with pytest.raises(ConfigError, match="has table_id"):
        export(other, tmp_path / "new", since=str(full))
    (full / EXPORT).unlink()
    with pytest.raises(ConfigError, match=r"has no export\.json"):
        export(history, tmp_path / "new", since=str(full))
    assert not (tmp_path / "new").exists()


@settings(max_examples=HISTORIES, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=STEPS,
    start=st.integers(0, 7),
    options=st.sampled_from(
        [{}, {"where": WHERE}, {"importer": "pinecone"}, {"importer": "pinecone", "where": WHERE}]
    ),
)
def test_a_target_that_applies_the_changes_equals_an_export_of_all_rows_after_any_history(
    steps: list[Step], start: int, options: dict[str, str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history, place = History(Path(folder) / "out"), Path(folder)
        history.run(ok="ab", failed="c")
        described(history.path)
        play(history, steps[:start])
        options = options | {"columns": ["image_id", "run_id"]}
        before = export(history, place / "before", **options)
        play(history, steps[start:])
        try:
            changes = export(history, place / "changes", since=str(before), **options)
        except VersionGoneError:
            assert ("vacuum",) in steps[start:]
            return
        assert applied(rows_of(before), changes) == rows_of(export(history, place / "after", **options))
