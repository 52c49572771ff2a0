"""Exports of all rows: their folder, their rows and columns, and `export.json`."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, TableError
from pipeline.export.summary import EXPORT
from pipeline.face.opened_space import Space
from tests.support.commands import lakelens
from tests.support.histories import History
from tests.support.outputs import FAILED_ROWS, Output
from tests.support.seaweed import S3Server


def rows_of(folder: Path) -> list[dict[str, object]]:
    """The rows of the files that `export.json` names, in their order."""
    files = json.loads((folder / EXPORT).read_text())["files"]
    return [row for file in files for row in pq.read_table(folder / file["path"], partitioning=None).to_pylist()]


def test_parquet_has_every_ok_row_with_its_dataset_as_text(opened: Space, output: Output, tmp_path: Path) -> None:
    made = opened.export(str(tmp_path / "new"))
    found = pq.read_table(tmp_path / "new" / "0.parquet")
    assert {row["image_id"]: row["embedding"] for row in found.to_pylist()} == output.vectors
    assert found.schema.field("dataset").type == pa.string()
    assert set(found["dataset"].to_pylist()) == set(output.datasets)
    assert found.column_names[-2:] == ["embedding", "caption"]
    assert (made.rows, made.version, made.fingerprint, made.dim) == (output.ok_rows, opened.version, "f" * 16, 8)
    assert json.loads((tmp_path / "new" / EXPORT).read_text()) == made.model_dump(mode="json")


def test_files_have_the_same_number_of_rows_in_the_order_of_the_table(opened: Space, tmp_path: Path) -> None:
    opened.export(str(tmp_path / "new"), rows_per_file=5, columns=["dataset"])
    names = sorted(path.name for path in (tmp_path / "new").glob("*.parquet"))
    assert names == ["0.parquet", "1.parquet", "2.parquet", "3.parquet"]
    assert [pq.read_metadata(tmp_path / "new" / name).num_rows for name in names] == [5, 5, 5, 3]
    assert rows_of(tmp_path / "new") == opened.to_arrow(["image_id", "dataset"]).to_pylist()


def test_progress_ends_with_all_rows(opened: Space, output: Output, tmp_path: Path) -> None:
    for to in ("parquet", "faiss"):
        seen = list[tuple[int, int]]()
        opened.export(
            str(tmp_path / to), to=to, rows_per_file=2, on_progress=lambda *counts, seen=seen: seen.append(counts)
        )
        assert seen == sorted(seen)
        assert seen[-1] == (output.ok_rows, output.ok_rows)


def test_only_the_rows_and_columns_that_are_asked_for_are_written(opened: Space, tmp_path: Path) -> None:
    asked = {"datasets": ["007", "street a/b"], "where": "caption IS NOT NULL -- a comment"}
    made = opened.export(str(tmp_path / "new"), columns=["outcome", "image_id"], rows_per_file=4, **asked)
    assert rows_of(tmp_path / "new") == opened.to_arrow(["outcome", "image_id"], **asked).to_pylist()
    assert (made.rows, made.columns) == (6, ("outcome", "image_id"))


def test_failed_rows_are_exported_where_asked(opened: Space, output: Output, tmp_path: Path) -> None:
    opened.export(str(tmp_path / "new"), outcome="failed", columns=["uri", "error_code"])
    found = rows_of(tmp_path / "new")
    assert len(found) == FAILED_ROWS * len(output.datasets)
    assert {row["error_code"] for row in found} == {"corrupt"}


def test_an_export_without_rows_is_whole_and_has_no_files(opened: Space, tmp_path: Path) -> None:
    made = opened.export(str(tmp_path / "new"), where="false")
    assert (made.rows, made.files) == (0, ())
    assert [path.name for path in (tmp_path / "new").iterdir()] == [EXPORT]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"to": "csv"}, "--to csv is not known; use one of parquet, npy, faiss, jsonl"),
        ({"importer": "weaviate"}, "--for weaviate is not known; use one of milvus, pinecone"),
        ({"to": "jsonl", "importer": "milvus"}, "use it with --to parquet"),
        ({"to": "npy", "outcome": "failed"}, "Failed rows have no vectors"),
        ({"outcome": "both"}, "outcome = 'both' is neither"),
        ({"where": "score = (SELECT max(score) FROM predictions)"}, "uses a subquery"),
        ({"where": "finished_at > Now() - INTERVAL 1 DAY"}, "uses now"),
        ({"where": "finished_at < current_timestamp"}, "uses current_timestamp"),
        ({"where": "score > random()"}, "uses random"),
        ({"where": "scoer > 1"}, "'scoer > 1' cannot be evaluated"),
        ({"to": "faiss", "since": 1}, "A FAISS index is exported as a whole"),
        ({"to": "faiss", "address": "auto"}, "leave --address out"),
        ({"rows_per_file": -1}, "cannot have -1 rows"),
    ],
)
def test_what_does_not_go_together_is_one_sentence_and_writes_nothing(
    asked: dict[str, object], sentence: str, opened: Space, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        opened.export(str(tmp_path / "new"), **asked)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


def test_an_unknown_column_is_named_with_the_one_that_may_be_meant(opened: Space, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no column 'lable'; did you mean 'label'"):
        opened.export(str(tmp_path / "new"), columns=["lable"])


def test_a_folder_that_is_not_empty_is_refused_and_stays_as_it_is(opened: Space, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"is not empty; .* that did not finish: there is no export.json"):
        opened.export(str(tmp_path))
    with pytest.raises(ConfigError, match=r"mine.txt is not empty"):
        opened.export(str(tmp_path / "mine.txt"))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_second_export_to_the_same_folder_is_refused(opened: Space, tmp_path: Path) -> None:
    opened.export(str(tmp_path / "new"))
    with pytest.raises(ConfigError, match=r"is not empty; choose another folder, or delete it\.$"):
        opened.export(str(tmp_path / "new"))


def test_a_folder_inside_the_output_is_refused_even_behind_a_link(
    opened: Space, output: Output, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(output.path)
    for folder in (output.path / "export", output.path, tmp_path / "link" / "export"):
        with pytest.raises(ConfigError, match="is inside the output"):
            opened.export(str(folder))


def test_an_export_whose_writer_is_killed_has_no_export_json_and_whole_files(
    history: History, tmp_path: Path
) -> None:
    history.run(ok=[f"{number:03}" for number in range(400)])
    command = ["export", str(history.path), "--out", str(tmp_path / "new"), "--rows-per-file", "1"]
    process = subprocess.Popen([sys.executable, "-m", "jobs", *command], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "new").glob("*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    files = list((tmp_path / "new").glob("*.parquet"))
    assert 0 < len(files) < 404
    assert all(pq.read_metadata(file).num_rows == 1 for file in files)
    assert not (tmp_path / "new" / EXPORT).exists()


def test_an_export_to_s3_has_the_same_rows(opened: Space, s3: S3Server, tmp_path: Path) -> None:
    s3.filesystem().makedirs("exports", exist_ok=True)
    made = opened.export("s3://exports/new/here", rows_per_file=10)
    s3.filesystem().get("exports/new/here", str(tmp_path / "copy"), recursive=True)
    assert [file.path for file in made.files] == ["0.parquet", "1.parquet"]
    assert rows_of(tmp_path / "copy") == opened.to_arrow(made.columns).to_pylist()
    with pytest.raises(ConfigError, match="s3://exports/new/here is not empty"):
        opened.export("s3://exports/new/here")


def test_the_command_prints_a_sentence_or_what_export_json_says(
    output: Output, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("export", output.path, "--columns", "label,dataset", "--dataset", "007", "--out")
    assert lakelens(*command, tmp_path / "one", monkeypatch=monkeypatch) == 0
    version = json.loads((tmp_path / "one" / EXPORT).read_text())["version"]
    assert capsys.readouterr().out == (
        f"6 rows in 1 files written to {tmp_path}/one; continue with --since {version}\n"
    )
    again = (*command, tmp_path / "two", "--since", version, "--json")
    assert lakelens(*again, monkeypatch=monkeypatch) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((tmp_path / "two" / EXPORT).read_text())
    assert (said["columns"], said["since"], said["rows"]) == (["image_id", "label", "dataset"], version, 0)
    assert lakelens(*command, tmp_path / "one", monkeypatch=monkeypatch) == 2
    assert "is not empty" in capsys.readouterr().err
