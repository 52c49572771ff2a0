"""`lakelens search` and what it prints."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import console
from tests.support import outputs
from tests.support.commands import lakelens
from tests.support.outputs import Output


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return outputs.write_output(tmp_path_factory.mktemp("search") / "out", ("007", "street a b"))


def test_json_is_a_list_of_objects_and_nothing_else_on_stdout(
    output: Output, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("search", output.path, "--id", "007/00.jpg", "--k", 2, "--dataset", "007", "--json")
    assert lakelens(*words, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr()
    hits = json.loads(shown.out)
    assert [list(hit) for hit in hits] == [["image_id", "uri", "dataset", "label", "score", "distance"]] * 2
    assert {hit["dataset"] for hit in hits} == {"007"}
    assert "007/00.jpg" not in {hit["image_id"] for hit in hits}
    assert "Every row was compared." in shown.err


def test_a_vector_from_stdin_and_a_condition(
    output: Output, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = json.dumps(output.vectors["street a b/11.jpg"]).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(vector)))
    words = ("search", output.path, "--vector", "-", "--k", 1, "--where", "caption IS NOT NULL")
    assert lakelens(*words, monkeypatch=monkeypatch) == 0
    header, hit = capsys.readouterr().out.splitlines()
    assert header.split() == ["distance", "label", "score", "dataset", "image_id", "uri"]
    assert hit.split() == ["0.0000", "cat", "0.75", "street", "a", "b", "street", "a", "b/11.jpg", "u"]
    assert lakelens("search", output.path, "--id", "007/00.jpg", "--where", "false", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == "No row meets the condition.\n"


def test_rows_of_a_model_without_a_head_have_no_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs.write_headless(tmp_path / "out", {"a": [1.0, 0.0], "b": [0.5, 0.5]})
    assert lakelens("search", tmp_path / "out", "--id", "a", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["0.2929", "-", "-", "images", "b", "u"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "exactly one query"),
        (("--id", "nope"), "no image_id 'nope'"),
        (("--id", "007/0bad.jpg"), "The row '007/0bad.jpg' has no vector: decode failed with corrupt"),
        (("--id", "007/00.jpg", "--dataset", "nope"), "has no dataset 'nope'; it has 007, street a b."),
        (("--id", "007/00.jpg", "--where", "nope"), "The condition 'nope' cannot be evaluated"),
        (("--vector", "no.npy"), "The file no.npy does not exist."),
        (("--text", "a cat"), "has no text encoder"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(
    words: tuple[str, ...],
    sentence: str,
    output: Output,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert lakelens("search", output.path, *words, monkeypatch=monkeypatch) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.strip().splitlines()
    assert sentence in line


def test_a_search_by_id_starts_neither_ray_nor_a_model(output: Output) -> None:
    script = (
        f"import sys; sys.argv = ['lakelens', 'search', {str(output.path)!r}, '--id', '007/00.jpg']\n"
        "from jobs.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('ray', 'torch', 'transformers', 'openvino', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


LONG = "s3://a-bucket-with-a-long-name/" + "folder/" * 20 + "photo 00001.jpg"


def test_a_table_is_as_wide_as_the_terminal_and_paths_lose_their_middle() -> None:
    header, rows = ("label", "image_id", "uri"), [["tabby cat", "img-1", LONG], ["dog", LONG + "#bytes=1-2", "u"]]
    shown = console.shortened(header, rows, ("image_id", "uri"), 80)
    assert max(sum(map(len, row)) for row in shown) + 2 * console.GAP <= 80
    assert [row[0] for row in shown] == ["tabby cat", "dog"]
    assert (shown[0][1], shown[1][2]) == ("img-1", "u")
    start, end = shown[0][2].split("…")
    assert LONG.startswith(start)
    assert LONG.endswith(end)
    assert end.endswith("photo 00001.jpg")
    assert console.shortened(header, rows, (), 80) == rows
    assert console.shortened(header, rows, ("image_id", "uri"), 1000) == rows
    assert len(console.shortened(header, rows, ("image_id", "uri"), 20)[0][2]) == console.LEAST


def test_wide_characters_take_two_cells() -> None:
    ((shown,),) = console.shortened(["uri"], [["写真" * 40]], ["uri"], 30)
    assert 28 <= 2 * len(shown) - 1 <= 31
