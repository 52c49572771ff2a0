"""The demo labels its lake, and proposes commands at its end."""

import subprocess
import sys
from pathlib import Path

import pytest

from jobs import demo


@pytest.mark.parametrize(
    ("program", "command"),
    [("/repo/jobs/__main__.py", "python -m jobs"), (".venv/bin/lakelens", ".venv/bin/lakelens")],
)
def test_the_demo_proposes_commands_by_the_name_that_started_it(
    program: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", [program, "demo"])
    demo.show_next(Path("d/demo.yaml"), Path("d/output"), Path("d/words"))
    shown = capsys.readouterr().out
    assert f"  {command} plan d/demo.yaml" in shown
    assert f"  {command} errors d/output" in shown
    assert f"  {command} search d/output --id " in shown
    assert f"  {command} search d/words --text " in shown
    assert f"  {command} run " in shown


@pytest.mark.slow
@pytest.mark.ray
def test_the_demo_labels_its_lake_as_it_was_drawn(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "demo", "--folder", tmp_path / "demo", "--images", "120"],
        capture_output=True,
        text=True,
        timeout=160,
        check=True,
    )
    ours = ("images", "no classification head")  # progress, and a note on the second model; nothing of Ray's
    assert not [line for line in done.stderr.splitlines() if not any(word in line for word in ours)]
    totals = [line.split() for line in done.stdout.splitlines() if line.startswith("total")]
    account, accuracy, of_words = totals
    assert account == of_words == ["total", "140", "120", "12", "8"]
    assert accuracy[1] == "120"
    assert float(accuracy[2].rstrip("%")) >= 97
    searched = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("search: ")]
    assert len(searched) == 2
    assert all(float(share.rstrip("%")) >= 95 for share in searched)
    assert f"plan {tmp_path / 'demo' / 'demo.yaml'}" in done.stdout
    assert (tmp_path / "demo" / "demo.yaml").exists()
