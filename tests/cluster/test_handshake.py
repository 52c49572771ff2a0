"""Heads without tokens, of other versions, or whose Python is not on the PATH."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import ray
from ray._common.usage import usage_constants
from ray._private import ray_constants
from ray._raylet import GcsClient  # type: ignore[attr-defined]

from pipeline.cluster import connection, dashboard, handshake
from pipeline.cluster.ray_internals import reload_authentication
from pipeline.cluster.submission import Submissions
from pipeline.config import RunConfig
from pipeline.errors import ClusterError, ConfigError
from tests.support import heads, lakes, tls

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_looks_anew")]
WHERE = "the Ray cluster at head:6379"


@pytest.fixture(scope="module")
def head() -> Iterator[heads.Head]:
    with heads.running(plain=True) as started:
        yield started


@pytest.fixture
def _client(head: heads.Head) -> Iterator[None]:
    with heads.client_of(head):
        yield


@pytest.fixture
def lake(tmp_path: Path) -> RunConfig:
    lakes.folder_of_images(tmp_path / "images", 3)
    return lakes.settings(tmp_path / "images", lakes.tiny_vit(tmp_path / "model"), tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("address", ["gcs", "address"])
def test_a_cluster_without_tokens_accepts_a_client_with_one(
    head: heads.Head, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": heads.TOKEN}.items():
        monkeypatch.setenv(name, value)
    reload_authentication()
    try:
        if address == "address":
            assert Submissions(head.address).all() is not None
            return
        with connection.connected(head.gcs):
            assert ray.is_initialized()
    finally:
        monkeypatch.undo()
        reload_authentication()


@pytest.mark.slow
@pytest.mark.usefixtures("_client")
@pytest.mark.parametrize(("key", "theirs"), [("ray_version", "2.9.3"), ("python_version", "3.10.1")])
def test_an_error_about_versions_names_both_versions_of_ray_and_python(
    head: heads.Head, key: str, theirs: str
) -> None:
    client, where = GcsClient(address=head.gcs), ray_constants.KV_NAMESPACE_CLUSTER
    stored = client.internal_kv_get(usage_constants.CLUSTER_METADATA_KEY, where)
    versions = {**json.loads(stored), key: theirs}
    client.internal_kv_put(usage_constants.CLUSTER_METADATA_KEY, json.dumps(versions).encode(), True, where)
    ours = f"Ray {ray.__version__} on Python {'.'.join(map(str, sys.version_info[:3]))}"
    try:
        with pytest.raises(ClusterError) as caught, connection.connected(head.gcs):
            raise AssertionError
    finally:
        client.internal_kv_put(usage_constants.CLUSTER_METADATA_KEY, stored, True, where)
    theirs = f"Ray {versions['ray_version']} on Python {versions['python_version']}"
    assert all(fact in str(caught.value) for fact in (head.gcs, theirs, ours))


@pytest.mark.slow
@pytest.mark.usefixtures("_client")
def test_a_job_whose_python_lacks_packages_names_it_and_runs_with_another_one(
    head: heads.Head, lake: RunConfig
) -> None:
    submissions, log = Submissions(head.address), []
    job_id = submissions.submit(lake)
    assert submissions.follow(job_id, log.append) == 2
    said = "".join(log)
    assert "Traceback" not in said
    assert "error: The Python of this job, /" in said
    assert "lakelens submit --python PATH" in said

    log.clear()
    job_id = submissions.submit(lake, python="no-such-python")
    assert submissions.follow(job_id, log.append) == 2
    assert "error: The head that runs this job has no no-such-python" in "".join(log)

    job_id = submissions.submit(lake, python=sys.executable)
    assert submissions.follow(job_id, log.append) == 0
    assert len(lakes.predictions(lake.output.path)) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("_client")
def test_a_dashboard_with_a_private_certificate_authority_is_reached_with_its_certificate(
    head: heads.Head, lake: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in dashboard.CA_FILES:
        monkeypatch.delenv(variable, raising=False)
    with tls.before(urlsplit(head.address).port or 0, tmp_path / "tls") as secured:
        with pytest.raises(ClusterError, match=r"is not trusted.*--ca-file, REQUESTS_CA_BUNDLE"):
            Submissions(secured.url)
        trusting, log = Submissions(secured.url, str(secured.ca_file)), []
        assert trusting.follow(trusting.submit(lake, python="nowhere"), log.append) == 2
        assert "has no nowhere" in "".join(log)
        for variable in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
            with monkeypatch.context() as patched:
                patched.setenv(variable, str(secured.ca_file))
                assert Submissions(secured.url).all() is not None
        with pytest.raises(ConfigError, match=r"^--ca-file = /no/such cannot be used: No such file"):
            Submissions(secured.url, "/no/such")
        (tmp_path / "text").write_text("no certificate")
        with pytest.raises(ConfigError, match="it holds no certificate"):
            Submissions(secured.url, str(tmp_path / "text"))


def test_rays_text_about_versions_becomes_one_line() -> None:
    text = "Version mismatch: The cluster was started with:\n    Ray: 1.0\n    Python: 3.8.1\n"
    text += "This process on node 1.2.3.4 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    sentence = str(handshake.refusal(RuntimeError(text), WHERE))
    assert re.search(r"runs Ray 1\.0 on Python 3\.8\.1, .* Ray 2\.60\.0 on Python 3\.11\.7\.", sentence)
    assert "\n" not in sentence


def test_a_missing_token_is_found_inside_rays_long_text() -> None:
    text = "Failed to connect to GCS. Last connection error: Traceback\n  x\nRPC error: InvalidAuthToken: missing"
    assert "requires a token" in str(handshake.refusal(RuntimeError(text), WHERE))


@pytest.mark.parametrize("text", ["", "odd.\nmore"])
def test_the_first_line_of_any_other_error_of_ray_is_kept(text: str) -> None:
    sentence = str(handshake.refusal(RuntimeError(text), WHERE))
    assert sentence == f"Cannot connect to {WHERE}: {'odd' if text else 'RuntimeError'}."


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"HOME": "/proc/nowhere"}, "RAY_AUTH_MODE=token is set, but there is no token"),
        ({"RAY_AUTH_TOKEN_PATH": "/no/such/token"}, "RAY_AUTH_TOKEN_PATH is set but file cannot be opened"),
    ],
    ids=str,
)
def test_a_missing_token_is_an_error_before_ray_ends_the_process(
    environment: dict[str, str], sentence: str
) -> None:
    """This runs in a process of its own, which Ray's core ends where the check fails."""
    script = f"from pipeline.cluster import handshake; handshake.require_token({WHERE!r})"
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**cleared, "RAY_AUTH_MODE": "token", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith(f"pipeline.errors.ClusterError: Cannot connect to {WHERE}: {sentence}")
    )


def test_a_port_that_accepts_and_never_answers_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "ANSWER_S", 0.5, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(ClusterError, match=WHERE):
            handshake.require_access(f"127.0.0.1:{silent.getsockname()[1]}", WHERE)
    assert time.monotonic() - started < 5
