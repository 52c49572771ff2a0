"""The commands that list folders say what they left out or could not list."""

import json
import os
from pathlib import Path

import pytest

from tests.support import lakes
from tests.support.commands import lakelens, run_in_a_process
from tests.support.making import save_images


def test_manifest_lists_a_folder_with_datasets_from_its_subfolders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    lakes.folder_of_images(tmp_path / "lake" / "cats", 2)
    lakes.folder_of_images(tmp_path / "lake" / "dogs", 3)
    out = tmp_path / "manifests" / "all.parquet"
    words = ("manifest", tmp_path / "lake", "--out", out, "--dataset-from", 0)
    assert lakelens(*words, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == f"5 images listed in {out}\n"
    config = tmp_path / "config.yaml"
    config.write_text(lakes.settings(out, model, tmp_path / "out").to_yaml())
    assert lakelens("plan", config, monkeypatch=monkeypatch) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:4]]
    assert rows == [["cats", "2", *"000", "2"], ["dogs", "3", *"000", "3"], ["total", "5", *"000", "5"]]


def test_manifest_tells_what_it_left_out_and_ends_with_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_images(tmp_path, ["one/a.jpg", "one/b.svg", "two/c.jpg", "two/.d.jpg"])
    out = tmp_path / "m.parquet"
    assert lakelens("manifest", tmp_path / "one", tmp_path / "two", "--out", out, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == f"2 images listed in {out}; left out: 1 .svg, 1 hidden\n"
    words = ("manifest", tmp_path / "one", "--out", out, "--all-files")
    assert lakelens(*words, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == f"2 images listed in {out}\n"
    assert lakelens(*words, "--suffix", ".svg", monkeypatch=monkeypatch) == 2
    assert "--all-files and --suffix exclude each other" in capsys.readouterr().err


def test_manifest_names_what_cannot_be_listed_writes_the_rest_and_ends_with_6(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_images(tmp_path / "lake", ["a.jpg", os.fsdecode(b"\xe9.jpg")])
    (tmp_path / "lake" / "empty.tar").touch()
    out = tmp_path / "m.parquet"
    assert lakelens("manifest", tmp_path / "lake", "--out", out, monkeypatch=monkeypatch) == 6
    shown = capsys.readouterr()
    assert shown.out == f"1 image listed in {out}\n"
    assert shown.err.splitlines() == [
        f"The shard {tmp_path}/lake/empty.tar is damaged: it is empty.",
        f"{tmp_path}/lake/\\xe9.jpg is not listed: its name is not UTF-8; rename it.",
    ]
    assert out.exists()


@pytest.mark.parametrize(("extra", "code"), [("notes.txt", 0), ("bad.tar.gz", 6)])
@pytest.mark.parametrize("words", [["plan"], ["backfill", "--dry-run"]])
def test_a_plan_of_a_folder_tells_what_was_not_listed(
    words: list[str],
    extra: str,
    code: int,
    config_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (config_file.parent / "photos" / extra).write_text("no image")
    assert lakelens(*words, config_file, monkeypatch=monkeypatch) == code
    shown = capsys.readouterr()
    assert shown.out.splitlines()[1].split() == ["images", "3", "0", "0", "0", "3"]
    (line,) = shown.err.splitlines()
    assert line == "3 images listed; left out: 1 .txt" if code == 0 else extra in line


@pytest.mark.slow
@pytest.mark.usefixtures("local_cluster")
def test_a_run_of_a_folder_in_which_something_cannot_be_listed_does_the_rest_and_ends_with_6(
    config_file: Path,
) -> None:
    photos, out = config_file.parent / "photos", config_file.parent / "out"
    (photos / "notes.txt").write_text("no image")
    (photos / "empty.tar").touch()
    told = [
        "3 images listed; left out: 1 .txt",
        f"The shard {photos}/empty.tar is damaged: it is empty.",
    ]
    for _ in range(2):  # the second time nothing is pending
        done = run_in_a_process(config_file)
        assert done.returncode == 6, done.stderr
        assert done.stderr.splitlines()[:2] == told
    assert len(lakes.predictions(out, "image_id")) == 3
    (folder,) = (out / "runs").iterdir()
    for name in ("plan.json", "summary.json"):
        document = json.loads((folder / name).read_text())
        assert (document["left_out"], document["unlisted"]) == ({".txt": 1}, told[1:])
