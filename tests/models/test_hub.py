"""Models by hub id: from a small hub of our own on 127.0.0.1, and, where asked for, from the real one."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType

import pytest

from pipeline.config import ModelConfig
from pipeline.models.model import resolve
from pipeline.storage.filesystems import Storage
from tests.support import lakes

COMMIT = "c0ffee00" * 5
MODEL = "lakes/tiny-vit"
LONG_AFTER = "Fri, 31 Dec 2100 23:59:59 GMT"


@dataclass
class Hub:
    """The calls of the hub's API that a snapshot needs, over the files of one model."""

    folder: Path
    asked: list[str] = field(default_factory=list)
    busy: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Status and headers of the next answers."""
    url: str = ""

    def of_models(self) -> list[str]:
        """Requests that are about a model; the hub's client has others of its own."""
        return [path for path in self.asked if MODEL in path]

    def info(self) -> bytes:
        files = [{"rfilename": path.name} for path in sorted(self.folder.iterdir())]
        return json.dumps({"id": MODEL, "sha": COMMIT, "siblings": files}).encode()

    def tree(self) -> bytes:
        files = sorted(self.folder.iterdir())
        entries = [
            {
                "type": "file",
                "path": p.name,
                "size": p.stat().st_size,
                "oid": hashlib.sha1(p.read_bytes()).hexdigest(),
            }
            for p in files
        ]
        return json.dumps(entries).encode()

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        self.asked.append(path)
        if self.busy and path in self.of_models():
            status, headers = self.busy.pop(0)
            return status, b"{}", headers
        if path.startswith(f"/api/models/{MODEL}/revision/"):
            known = path.endswith(("/main", "/v1", COMMIT))
            return (200, self.info(), {}) if known else (404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if path.startswith(f"/api/models/{MODEL}/tree/"):
            return 200, self.tree(), {}
        name = self.folder / path.rsplit("/", 1)[-1]
        if path.startswith(f"/{MODEL}/resolve/") and name.exists():
            data = name.read_bytes()
            return 200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        return 404, b"{}", {"X-Error-Code": "RepoNotFound"}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    served = Hub(lakes.tiny_vit(tmp_path / "served"))
    (served.folder / "pytorch_model.bin").write_bytes(b"never to be fetched")

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = served.answer(self.path.split("?")[0])
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    yield served
    server.shutdown()
    server.server_close()


def plan(
    hub_url: str,
    work: Path,
    *overrides: str,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.CompletedProcess[str]:
    """`lakelens plan` in a process of its own: the hub's address is read when its client is imported."""
    lakes.folder_of_images(work / "images", 1)
    settings = lakes.settings(work / "images", MODEL, work / "out" / "{space}")
    (work / "config.yaml").write_text(settings.to_yaml())
    words = [word for override in overrides for word in ("--set", override)]
    ours = {"HF_ENDPOINT": hub_url, "HF_HOME": str(work / "hf"), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-m", "jobs", "plan", work / "config.yaml", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **ours, **environment},
    )


def test_a_model_is_fetched_by_its_hub_id_and_used_again_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    first = plan(hub.url, tmp_path)
    assert first.returncode == 0, first.stderr
    assert f"{tmp_path}/out/tiny-vit-" in first.stdout
    assert any(path.endswith("/model.safetensors") for path in hub.asked)
    assert not any("pytorch_model.bin" in path for path in hub.asked if "/resolve/" in path)

    again = plan("http://127.0.0.1:9", tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout


def test_a_revision_is_honoured(hub: Hub, tmp_path: Path) -> None:
    assert plan(hub.url, tmp_path, "model.revision=v1").returncode == 0
    assert f"/api/models/{MODEL}/revision/v1" in hub.asked
    missing = plan(hub.url, tmp_path, "model.revision=v2")
    assert missing.returncode == 2
    assert f"no model {MODEL} at revision v2" in missing.stderr


def test_a_model_that_the_hub_does_not_have_is_refused(hub: Hub, tmp_path: Path) -> None:
    missing = plan(hub.url, tmp_path, "model.name=lakes/none")
    assert missing.returncode == 2
    (line,) = missing.stderr.strip().splitlines()
    assert "has no model lakes/none at revision main" in line


def test_a_cached_commit_costs_no_request_even_if_another_program_has_cached_it(hub: Hub, tmp_path: Path) -> None:
    first = plan(hub.url, tmp_path, f"model.revision={COMMIT}")
    assert first.returncode == 0, first.stderr
    hub.asked.clear()
    again = plan(hub.url, tmp_path, f"model.revision={COMMIT}")
    assert (again.returncode, again.stdout, hub.asked) == (0, first.stdout, [])
    (listed,) = tmp_path.glob("hf/hub/models--*/trees")
    shutil.rmtree(listed)  # only downloads of whole snapshots write it
    again = plan(hub.url, tmp_path, f"model.revision={COMMIT}")
    assert (again.returncode, again.stdout, hub.asked) == (0, first.stdout, [])


def test_a_cached_commit_that_lacks_a_file_is_completed(hub: Hub, tmp_path: Path) -> None:
    assert plan(hub.url, tmp_path, f"model.revision={COMMIT}").returncode == 0
    (weights,) = tmp_path.glob("hf/hub/models--*/snapshots/*/model.safetensors")
    weights.unlink()
    again = plan(hub.url, tmp_path, f"model.revision={COMMIT}")
    assert again.returncode == 0, again.stderr
    assert weights.exists()


@pytest.mark.parametrize("status", [429, 503])
def test_requests_to_a_busy_hub_wait_as_long_as_it_asks(hub: Hub, tmp_path: Path, status: int) -> None:
    hub.busy = [(status, {"Retry-After": "2"})]
    began_s = time.monotonic()
    done = plan(hub.url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began_s > 2
    assert hub.of_models()[0] == hub.of_models()[1]


@pytest.mark.parametrize(
    "headers", [{"Retry-After": "3600"}, {"RateLimit": '"api";r=0;t=3600'}, {"Retry-After": LONG_AFTER}], ids=str
)
def test_a_hub_that_stays_busy_ends_in_an_error(hub: Hub, tmp_path: Path, headers: dict[str, str]) -> None:
    hub.busy = [(429, headers)] * 9
    done = plan(hub.url, tmp_path)
    (line,) = done.stderr.strip().splitlines()
    assert (done.returncode, len(hub.of_models())) == (2, 1)
    assert (
        f"The Hugging Face hub is busy and answers requests for {MODEL} with status 429; try again later" in line
    )


def test_a_model_is_fetched_by_a_user_without_a_home(hub: Hub, tmp_path: Path) -> None:
    nobody = {"HOME": "/proc/nowhere", "HF_HOME": "", "XDG_CACHE_HOME": "relative", "TMPDIR": str(tmp_path)}
    done = plan(hub.url, tmp_path, environment=nobody)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    assert list(tmp_path.glob("lakelens-huggingface-*/hub/models--*/snapshots/*/model.safetensors"))


def test_a_model_is_fetched_although_the_hubs_cache_is_read_only(hub: Hub, tmp_path: Path) -> None:
    nowhere = {"HF_HUB_CACHE": "/dev/null/hub", "TMPDIR": str(tmp_path)}
    done = plan(hub.url, tmp_path, f"model.revision={COMMIT}", environment=nowhere)
    assert done.returncode == 0, done.stderr
    hub.asked.clear()
    again = plan(hub.url, tmp_path, f"model.revision={COMMIT}", environment=nowhere)
    assert (again.returncode, again.stdout, hub.asked) == (0, done.stdout, [])


@pytest.mark.hub
@pytest.mark.skipif("LAKELENS_HUB" not in os.environ, reason="needs the Hugging Face hub: set LAKELENS_HUB=1")
def test_the_default_model_is_on_the_real_hub() -> None:
    model = resolve(ModelConfig(), Storage())
    assert (model.model_type, model.dim, len(model.labels)) == ("vit", 768, 1000)
    assert (model.preprocessing.height, model.preprocessing.resample) == (224, "bilinear")
