"""The commands, as a person types them."""

import importlib
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import typer

from jobs import __main__ as cli
from tests.support import lakes
from tests.support.commands import lakelens


def test_the_help_shows_the_commands_in_their_group(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lakelens("--help", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "Make" in shown
    for command in cli.COMMANDS["Make"]:
        assert f" {command} " in shown


@pytest.mark.parametrize("command", [name for group in cli.COMMANDS.values() for name in group])
def test_every_command_has_a_help_of_its_own(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lakelens(command, "--help", monkeypatch=monkeypatch) == 0
    assert f"lakelens {command}" in capsys.readouterr().out


def test_every_file_of_a_command_is_short() -> None:
    folder = Path(cli.__file__).parent
    for name in [name for group in cli.COMMANDS.values() for name in group]:
        command = importlib.import_module(f"jobs.{name}").main
        commands = len(command.registered_commands) if isinstance(command, typer.Typer) else 1
        assert len((folder / f"{name}.py").read_text().splitlines()) <= 60 * commands, name


def _with(overrides: list[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["labels.topk=3"], "labels.topk is not a key; did you mean labels.top_k?"),
        (["labels.top_k=none"], "labels.top_k: Input should be a valid integer."),
        (["manifest.path=nowhere.parquet"], "The manifest nowhere.parquet does not exist; check manifest.path."),
        (
            ["manifest.path=s3://lake/m.csv", "storage.endpoint_url=http://127.0.0.1:9"],
            "the store cannot be reached",
        ),
        (["output.path=s3://lake/out", "storage.endpoint_url=http://127.0.0.1:9"], "the store cannot be reached"),
        (["model.name=./no-such-folder"], "The model folder ./no-such-folder does not exist on this machine."),
        (["model.name=no/such-model"], "The model no/such-model is neither a folder here nor in the local cache"),
        (["manifest.columns.uri=url"], "has no column 'url' (manifest.columns.uri)"),
        (["manifest.keep=[caption]"], "has no column 'caption' (manifest.keep)"),
    ],
)
def test_what_cannot_be_run_is_one_sentence_and_exit_code_2(
    command: str,
    overrides: list[str],
    sentence: str,
    config_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert lakelens(command, config_file, *_with(overrides), monkeypatch=monkeypatch) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.strip().splitlines()
    assert line.startswith("error: ")
    assert sentence in line
    assert line[-1] in ".?"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--code", "timeout"], "add --failed"),
        (["--failed", "--code", "time_out"], "--code time_out is not an error code; use one of not_found, "),
    ],
)
def test_a_backfill_of_no_code_is_one_sentence(
    words: list[str],
    sentence: str,
    config_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert lakelens("backfill", config_file, *words, monkeypatch=monkeypatch) == 2
    assert sentence in capsys.readouterr().err


def test_a_config_that_is_not_there_or_not_yaml_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.yaml").write_text("manifest: [")
    for name, expected in (("none.yaml", "Cannot read the config"), ("bad.yaml", "as YAML at line")):
        assert lakelens("plan", tmp_path / name, monkeypatch=monkeypatch) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert expected in line


def test_brackets_in_an_error_are_shown_and_not_taken_for_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lakelens("plan", "[red]none[/red].yaml", monkeypatch=monkeypatch) == 2
    assert "[red]none[/red].yaml" in capsys.readouterr().err


ENGINES = {"torch", "transformers", "openvino"}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("pipeline.run", ENGINES),
        ("pipeline.cluster.workers", ENGINES | {"aiohttp", "deltalake", "duckdb", "huggingface_hub", "PIL"}),
    ],
)
def test_a_run_and_its_actors_start_without_what_they_may_not_need(module: str, heavy: set[str]) -> None:
    script = f"import sys, {module}; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


def test_plan_prints_the_counts_and_imports_neither_ray_nor_torch(config_file: Path) -> None:
    script = (
        f"import sys; sys.argv = ['lakelens', 'plan', {str(config_file)!r}]\n"
        "from jobs.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('ray', 'torch', 'transformers', 'openvino') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    header, row, output, imported = done.stdout.strip().splitlines()
    assert header.split("  ") == ["dataset", "input", "already done", "duplicates", "invalid", "pending"]
    assert row.split() == ["images", "3", "0", "0", "0", "3"]
    assert output.startswith("output: ")
    assert imported == "[]"
    assert not (config_file.parent / "out").exists()


def test_plan_says_why_rows_are_invalid(
    tmp_path: Path, config_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"uri": uri, "dataset": name} for uri, name in (("a", "x"), ("", "x"), (None, "x"), ("b", ""))]
    manifest = lakes.write_manifest(tmp_path / "odd.parquet", rows)
    assert lakelens("plan", config_file, "--set", f"manifest.path={manifest}", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out.splitlines()
    assert f"invalid: uri is missing (2 rows; first: row 2 of {manifest})" in said
    assert f"invalid: dataset is empty or a reserved name (1 row; row 4 of {manifest})" in said


@pytest.mark.parametrize("command", ["manifest", "verify", "errors", "history", "compact", "vacuum"])
def test_commands_that_take_an_endpoint_take_a_region(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert lakelens(command, "--help", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "--endpoint-url" in shown
    assert "--region" in shown


def test_requests_are_signed_for_the_region_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    signatures: list[str] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            signatures.append(self.headers.get("Authorization", ""))
            self.send_error(403)

        do_HEAD = do_GET  # noqa: N815 - named by its base class

        def log_request(self, *args: object) -> None: ...

        log_error = log_request

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        words = ("manifest", "s3://lake/", "--out", tmp_path / "m.parquet", "--region", "eu-west-3")
        endpoint = ("--endpoint-url", f"http://127.0.0.1:{server.server_port}")
        assert lakelens(*words, *endpoint, monkeypatch=monkeypatch) == 2
        server.shutdown()
    assert "s3://lake" in capsys.readouterr().err
    assert signatures
    assert all("/eu-west-3/s3/" in signature for signature in signatures)


def test_backfill_explains_its_two_selections(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert lakelens("backfill", "--help", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "Without --failed" in shown
    assert "With --failed" in shown
    assert "--missing" not in shown
