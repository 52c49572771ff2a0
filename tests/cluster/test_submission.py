"""Runs as jobs of a real Ray head with a dashboard and a token."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import config
from pipeline.cluster import connection
from pipeline.cluster.ray_internals import reload_authentication
from pipeline.cluster.runtime_environment import read as runtime_env
from pipeline.cluster.submission import Submissions
from pipeline.config import RunConfig
from pipeline.errors import BusyError, ClusterError, ConfigError
from tests.support import heads, lakes

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_looks_anew")]
ROWS = 7_000
METRIC = re.compile(r"ray_lakelens_\w+|ray_data_num_external_inqueue_blocks")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def head() -> Iterator[heads.Head]:
    with heads.running() as started:
        yield started


@pytest.fixture
def submissions(head: heads.Head) -> Iterator[Submissions]:
    with heads.client_of(head):
        yield Submissions(head.address)


@pytest.fixture
def lake(tmp_path: Path) -> RunConfig:
    images = lakes.folder_of_images(tmp_path / "images", 10)
    rows = {"uri": [str(images[n % 10]) for n in range(ROWS)], "image_id": [f"{n:05}" for n in range(ROWS)]}
    pq.write_table(pa.table(rows), tmp_path / "manifest.parquet")
    model = lakes.tiny_vit(tmp_path / "model")
    return lakes.settings(tmp_path / "manifest.parquet", model, tmp_path / "out", "output.commit_interval_s=1")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("http://127.0.0.1:9", r"^Cannot connect to the Ray dashboard at http://127\.0\.0\.1:9: nothing answers"),
        ("127.0.0.1:8265", r"^127\.0\.0\.1:8265 .* http://host:8265"),
        ("ray://127.0.0.1:10001", r"^ray://.* http://host:8265"),
    ],
)
def test_an_address_without_a_dashboard_is_refused(address: str, sentence: str) -> None:
    with pytest.raises(ClusterError, match=sentence):
        Submissions(address)


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN"])
def test_the_error_about_a_wrong_token_says_how_to_provide_one(
    submissions: Submissions, head: heads.Head, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "disabled" if variable == "RAY_AUTH_MODE" else heads.TOKEN[::-1])
    reload_authentication()
    wanted = "requires a token, .* RAY_AUTH_MODE=token"
    with pytest.raises(ClusterError, match=wanted):
        Submissions(head.address).all()
    began_s = time.monotonic()
    with pytest.raises(ClusterError, match=wanted), connection.connected(head.gcs):
        raise AssertionError
    assert time.monotonic() - began_s < 5


@pytest.mark.slow
def test_headers_of_the_environment_go_with_every_request(
    head: heads.Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is in a header of our own, as a proxy may need one."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_JOB_HEADERS", json.dumps({"Authorization": f"Bearer {heads.TOKEN}"}))
    reload_authentication()
    submissions = Submissions(head.address)
    assert submissions.all() is not None
    with pytest.raises(ClusterError, match="no job none-0"):
        submissions.stop("none-0")


@pytest.mark.parametrize("text", ["{", "[]", '{"X-Name": 7}', "a-secret"])
def test_the_error_about_headers_that_are_no_json_object_does_not_show_them(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_HEADERS", text)
    with pytest.raises(ConfigError, match=r"^RAY_JOB_HEADERS must be a JSON object") as caught:
        Submissions("http://127.0.0.1:9")
    assert "secret" not in str(caught.value)


@pytest.mark.slow
def test_the_error_about_an_unknown_job_names_it(submissions: Submissions) -> None:
    with pytest.raises(ClusterError, match=r"no job none-0\."):
        submissions.stop("none-0")


def test_paths_that_only_this_machine_has_are_refused(lake: RunConfig) -> None:
    raw = lake.model_dump(mode="json")
    raw["output"]["path"] = "out"
    nowhere = Submissions.__new__(Submissions)
    with pytest.raises(ConfigError, match=r"^output\.path = out is relative"):
        nowhere.submit(config.parse(raw))


@pytest.mark.slow
def test_a_run_that_cannot_start_ends_with_its_own_exit_code_and_message(
    submissions: Submissions, lake: RunConfig
) -> None:
    log: list[str] = []
    environment = {"env_vars": {"LAKELENS_LOG_FORMAT": "json"}}
    job_id = submissions.submit(lake, ["--require", "LAKELENS_NO_SUCH_VARIABLE"], environment)
    assert submissions.follow(job_id, log.append) == 2
    (line,) = (json.loads(line) for line in "".join(log).splitlines() if line.startswith("{"))
    assert (line["event"], line["level"], line["run_id"]) == ("failed", "error", None)
    assert "LAKELENS_NO_SUCH_VARIABLE is not set" in line["message"]
    job = submissions.find(job_id)
    assert (job.status, job.exit_code, job.output) == ("FAILED", 2, lake.output.path)


@pytest.mark.slow
def test_a_run_is_submitted_once_exports_metrics_and_can_be_stopped_and_resumed(
    submissions: Submissions, head: heads.Head, lake: RunConfig
) -> None:
    with submit(head.address, lake) as following:
        first = shown(following)
        taken_part_of_and_stopped(submissions, head, lake, first, following)
    stopped = lakes.predictions(lake.output.path)
    assert 0 < len(stopped) < ROWS
    assert not submissions.stop(first)

    with submit(head.address, lake) as following:
        second, (said, _) = shown(following), following.communicate(timeout=120)
    assert following.returncode == 0
    assert second == first[:-1] + "1"
    assert re.search(rf"images +{ROWS:,} +{len(stopped):,} +{ROWS - len(stopped):,}", said)
    assert [row["image_id"] for row in lakes.predictions(lake.output.path)] == [f"{n:05}" for n in range(ROWS)]
    assert [job.id for job in submissions.all()][:2] == [second, first]


def taken_part_of_and_stopped(
    submissions: Submissions, head: heads.Head, lake: RunConfig, first: str, following: "subprocess.Popen[str]"
) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}-0", first)
    with pytest.raises(BusyError, match=rf"already submitted as job {first}"):
        submissions.submit(lake)
    log = Path(lake.output.path, "predictions/_delta_log")
    while len(list(log.glob("*.json"))) < 3:  # creation, claim, rows
        assert submissions.find(first).exit_code is None
        time.sleep(0.1)
    # Nothing ran out of memory, and what was never counted is not there.
    while exported(head) != documented() - {"ray_lakelens_out_of_memory_total"}:
        assert submissions.find(first).exit_code is None
        time.sleep(0.2)
    following.send_signal(signal.SIGINT)  # which ends the following, and not the job
    assert following.wait(60) == 130
    assert submissions.stop(first)
    assert submissions.follow(first, lambda text: None) == 130


@pytest.mark.slow
@pytest.mark.skipif("LAKELENS_EVERY_STEP" not in os.environ, reason="a minute: a part of make soak")
def test_a_run_whose_head_died_continues_on_another_head(lake: RunConfig) -> None:
    log, committed = Path(lake.output.path, "predictions/_delta_log"), 0
    for count in (2, 1):
        with heads.running() as head, heads.client_of(head):
            job_id = Submissions(head.address).submit(lake)
            assert job_id.endswith("-0")  # a new head remembers no job
            if count == 1:
                assert Submissions(head.address).follow(job_id, lambda text: None) == 0
            while len(list(log.glob("*.json"))) < 4:
                time.sleep(0.1)
        committed = committed or len(lakes.predictions(lake.output.path))
    assert 0 < committed < ROWS
    assert [row["image_id"] for row in lakes.predictions(lake.output.path)] == [f"{n:05}" for n in range(ROWS)]


def submit(address: str, lake: RunConfig) -> "subprocess.Popen[str]":
    """`lakelens submit --wait`, as a person types it."""
    config_file = Path(f"{lake.output.path}.yaml")
    config_file.write_text(lake.to_yaml())
    words = [sys.executable, "-m", "jobs", "submit", str(config_file), "--address", address, "--wait"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def shown(submitted: "subprocess.Popen[str]") -> str:
    """Return the id in its first line."""
    assert submitted.stdout is not None
    return submitted.stdout.readline().split()[1]


SECRETS = [
    "DB_PASS",
    "PGPASSWORD",
    "MYSQL_PWD",
    "APIKEY",
    "OPENAI_API_KEYS",
    "PASSPHRASE",
    "AUTHORIZATION",
    "COOKIE",
]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1]", "must be a YAML mapping"),
        ("env_vars: [A]", "must be a YAML mapping, and its env_vars must map names"),
        ("working_dir: .", "working_dir"),
        ("env_vars: {AWS_SECRET_ACCESS_KEY: x}", "AWS_SECRET_ACCESS_KEY looks like a secret.*--require"),
        ("env_vars: {HF_TOKEN: x}", "HF_TOKEN looks like a secret"),
        ("env_vars: {AZURE_STORAGE_CONNECTION_STRING: x}", "STRING looks like a secret"),
        *((f"env_vars: {{{name}: x}}", f"{name} looks like a secret") for name in SECRETS),
        ("pip: ['git+https://ghp_x@host/a']", "a URL holds a password or a signature"),
        ("env_vars: {PLACE: 'https://host/a?sig=x'}", "a URL holds a password or a signature"),
        ("env_vars: {HTTPS_PROXY: 'http://user:word@proxy'}", "a URL holds a password or a signature"),
        ("pip: ['--index-url https://user:word@index/simple']", "a URL holds a password or a signature"),
        ("env_vars: {DAY: 2026-01-01}", "must map names to strings or numbers"),
        ("env_vars: {RAY_JOB_STOP_WAIT_TIME_S: soon}", "RAY_JOB_STOP_WAIT_TIME_S must be a whole number"),
        ("{pip: [a], conda: b}", "is not a valid Ray runtime environment: "),
        ("pip: 7", "is not a valid Ray runtime environment: "),
    ],
)
def test_a_runtime_environment_that_a_job_cannot_have_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "environment.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        runtime_env(str(path))


def test_a_runtime_environment_is_kept_with_its_variables_as_text(tmp_path: Path) -> None:
    path = tmp_path / "environment.yaml"
    path.write_text(
        "pip: [tqdm]\nenv_vars: {OMP_NUM_THREADS: 4, TOKENIZERS_PARALLELISM: '1', RAY_AUTH_TOKEN_PATH: /t}"
    )
    variables = {"OMP_NUM_THREADS": "4", "TOKENIZERS_PARALLELISM": "1", "RAY_AUTH_TOKEN_PATH": "/t"}
    assert runtime_env(str(path)) == {"pip": ["tqdm"], "env_vars": variables}


def exported(head: heads.Head) -> set[str]:
    """Return the names of the metrics that Ray's agent exports: ours, and the documented one of Ray Data."""
    with urllib.request.urlopen(head.metrics_url) as answer:
        lines = answer.read().decode().splitlines()
    return {name for line in lines if line.startswith("# TYPE ") and METRIC.fullmatch(name := line.split()[2])}


def documented() -> set[str]:
    """Return the names of the metrics in docs/cluster.md."""
    rows = [line for line in (ROOT / "docs" / "cluster.md").read_text().splitlines() if line.startswith("| `ray_")]
    return {name for row in rows for name in METRIC.findall(row.split("|")[1])}


def test_the_dashboard_shows_the_documented_metrics_and_no_others() -> None:
    dashboard = (ROOT / "configs/grafana/lakelens.json").read_text()
    assert json.loads(dashboard)["panels"]
    assert {name.removesuffix("_bucket") for name in METRIC.findall(dashboard)} == documented()
