"""The commands that the demo proposes at its end."""

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
    demo.show_next(Path("d/demo.yaml"), Path("d/output"))
    shown = capsys.readouterr().out
    assert f"  {command} plan d/demo.yaml" in shown
    assert f"  {command} errors d/output" in shown
    assert f"  {command} run " in shown
