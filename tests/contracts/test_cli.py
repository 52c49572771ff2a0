"""The commands, as a person types them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import ray

from jobs import __main__ as cli, console
from pipeline.planning.account import Account, Counts, Progress
from tests.support import lakes
from tests.support.making import save_images


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lakes.tiny_vit(tmp_path_factory.mktemp("model"))


@pytest.fixture
def config_file(model: Path, tmp_path: Path) -> Path:
    """A config of three images, and the images."""
    lakes.folder_of_images(tmp_path / "photos", 3)
    path = tmp_path / "config.yaml"
    path.write_text(lakes.settings(tmp_path / "photos", model, tmp_path / "out").to_yaml())
    return path


def lakelens(*words: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["lakelens", *map(str, words)])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


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
        assert len((folder / f"{name}.py").read_text().splitlines()) <= 60, name


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
        done = _run(config_file)
        assert done.returncode == 6, done.stderr
        assert done.stderr.splitlines()[:2] == told
    assert len(lakes.predictions(out, "image_id")) == 3
    (folder,) = (out / "runs").iterdir()
    for name in ("plan.json", "summary.json"):
        document = json.loads((folder / name).read_text())
        assert (document["left_out"], document["unlisted"]) == ({".txt": 1}, told[1:])


@pytest.mark.slow
@pytest.mark.usefixtures("local_cluster")
def test_run_shows_plain_lines_without_a_terminal_and_a_second_run_says_there_is_nothing_to_do(
    config_file: Path,
) -> None:
    first = _run(config_file)
    assert first.returncode == 0, first.stderr
    assert "3 / 3 images" in first.stderr
    assert "0 errors" in first.stderr
    assert "\x1b" not in first.stdout + first.stderr
    assert first.stdout.splitlines()[:2] == ["dataset  input  ok", "images       3   3"]
    assert all(" / 3 images" in line for line in first.stderr.splitlines())  # nothing of Ray's comes through

    started = time.monotonic()
    second = _run(config_file)
    assert time.monotonic() - started < 10
    assert second.returncode == 0
    assert second.stdout.startswith("Nothing to do: ")
    assert second.stderr == ""


def test_the_time_to_go_may_be_longer_than_a_day(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "PLAIN_INTERVAL_S", 0.0)
    account = Account({"d": Counts(input=109_000)})
    with console.progress_line() as show:
        for elapsed_s, predicted in ((1, 500), (1001, 1500)):
            show(Progress(109_500, predicted, account, elapsed_s))
    assert "1.0 images/s  ETA 30:00:00" in capsys.readouterr().err


def test_plan_says_why_rows_are_invalid(
    tmp_path: Path, config_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"uri": uri, "dataset": name} for uri, name in (("a", "x"), ("", "x"), (None, "x"), ("b", ""))]
    manifest = lakes.write_manifest(tmp_path / "odd.parquet", rows)
    assert lakelens("plan", config_file, "--set", f"manifest.path={manifest}", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out.splitlines()
    assert f"invalid: uri is missing (2 rows; first: row 2 of {manifest})" in said
    assert f"invalid: dataset is empty or a reserved name (1 row; row 4 of {manifest})" in said


@pytest.mark.slow
@pytest.mark.usefixtures("local_cluster")
def test_an_interrupted_run_commits_what_it_has_and_exits_with_130(
    model: Path, config_file: Path, tmp_path: Path
) -> None:
    (path,) = lakes.folder_of_images(tmp_path / "one", 1)
    rows = [{"uri": str(path), "image_id": f"{i:06}"} for i in range(60_000)]
    manifest = lakes.write_manifest(tmp_path / "many.parquet", rows)
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "jobs", "run", config_file, "--address", address]
    process = subprocess.Popen(
        [*command, "--set", f"manifest.path={manifest}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "out" / "predictions" / "_delta_log"
    deadline = time.monotonic() + 120
    while not (log / f"{2:020}.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "stopping: " in err
    header, counts = (line.split() for line in out.splitlines()[:2])
    account = dict(zip(header[1:], (int(count.replace(",", "")) for count in counts[1:]), strict=True))
    assert account["left"] > 0
    assert account["ok"] == len(lakes.predictions(tmp_path / "out", "image_id")) == 60_000 - account["left"]


@pytest.mark.slow
@pytest.mark.ray
def test_the_demo_labels_its_lake_as_it_was_drawn(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "demo", "--folder", tmp_path / "demo", "--images", "120"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert not [line for line in done.stderr.splitlines() if "images" not in line]  # nothing of Ray's
    totals = [line.split() for line in done.stdout.splitlines() if line.startswith("total")]
    account, accuracy = totals
    assert account == ["total", "140", "120", "12", "8"]
    assert accuracy[1] == "120"
    assert float(accuracy[2].rstrip("%")) >= 97
    assert f"plan {tmp_path / 'demo' / 'demo.yaml'}" in done.stdout
    assert (tmp_path / "demo" / "demo.yaml").exists()


def _run(config: Path) -> subprocess.CompletedProcess[str]:
    address = ray.get_runtime_context().gcs_address
    return subprocess.run(
        [sys.executable, "-m", "jobs", "run", config, "--address", address],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


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
