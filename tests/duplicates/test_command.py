"""`lakelens duplicates`, and the search on a Ray cluster."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray

from pipeline.duplicates import pieces
from pipeline.duplicates.finding import find
from pipeline.face.opened_space import open_space
from pipeline.output.reader import PredictionsReader
from tests.support.commands import lakelens
from tests.support.making import STORAGE
from tests.support.pictures import planted, write_pictures


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 images in two datasets, 30 of them planted near others."""
    path = tmp_path_factory.mktemp("duplicates") / "out"
    rows = [
        {"image_id": f"{number:03}", "embedding": vector.tolist(), "dataset": "a street" if number % 2 else "map"}
        for number, vector in enumerate(planted(400, 8, 30, 0.01)[0])
    ]
    write_pictures(path, rows)
    (path / "space.json").write_text(json.dumps({"format": 2, "fingerprint": "f00"}))
    return path


def test_a_table_of_shares_and_where_the_groups_are(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lakelens("duplicates", output, "--distance", 0.01, monkeypatch=monkeypatch) == 0
    header, first, second, total, *sentence = capsys.readouterr().out.splitlines()
    assert header.split() == ["dataset", "images", "same", "bytes", "near", "share"]
    assert (first.split()[:3], second.split()[:4]) == (
        ["a", "street", "200"],
        ["map", "200", "0", second.split()[3]],
    )
    assert total.split()[:3] == ["total", "400", "0"]
    assert f"of 400 images ({total.split()[-1]}) are duplicates of another one" in " ".join(sentence)
    found = open_space(str(output)).duplicates()
    assert found.num_rows - int(total.split()[3]) == len(set(found["group"].to_pylist()))


def test_json_and_files_elsewhere(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, keep = tmp_path / "groups.parquet", tmp_path / "kept.parquet"
    words = ("duplicates", output, "--distance", 0.01, "--out", out, "--keep", keep, "--json")
    assert lakelens(*words, monkeypatch=monkeypatch) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["duplicates"], found["total"]["images"]) == (str(out), 400)
    assert pq.read_metadata(keep).num_rows == 400 - found["total"]["near"]


@pytest.mark.usefixtures("local_cluster")
def test_tasks_find_what_one_process_finds(output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_ROWS", 100)
    monkeypatch.setattr(pieces, "CLUSTER_ROWS", 50)
    reader, address = PredictionsReader.open(str(output), STORAGE), ray.get_runtime_context().gcs_address
    alone = find(reader, str(tmp_path / "alone.parquet"), distance=0.01)
    together = find(reader, str(tmp_path / "together.parquet"), distance=0.01, address=address)
    assert alone.groups == together.groups >= 25
    assert pq.read_table(together.duplicates).to_pylist() == pq.read_table(alone.duplicates).to_pylist()
