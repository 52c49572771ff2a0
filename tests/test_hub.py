"""Models by hub id: from a small hub of our own on 127.0.0.1, and, where asked for, from the real one."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import engines
from pipeline.config import EmbeddingConfig, ModelConfig
from pipeline.model import resolve
from pipeline.storage import Storage
from tests import lakes

COMMIT = "c0ffee00" * 5
MODEL = "lakes/tiny-vit"


@dataclass
class Hub:
    """The calls of the hub's API that a snapshot needs, over the files of one model."""

    folder: Path
    asked: list[str] = field(default_factory=list)
    url: str = ""

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


def plan(hub_url: str, work: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """`lakelens plan` in a process of its own: the hub's address is read when its client is imported."""
    lakes.folder_of_images(work / "images", 1)
    settings = lakes.settings(work / "images", MODEL, work / "out" / "{space}")
    (work / "config.yaml").write_text(settings.to_yaml())
    words = [word for override in overrides for word in ("--set", override)]
    return subprocess.run(
        [sys.executable, "-m", "jobs", "plan", work / "config.yaml", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HF_ENDPOINT": hub_url, "HF_HOME": str(work / "hf"), "HF_HUB_DISABLE_XET": "1"},
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


def test_a_model_that_the_hub_does_not_have_is_one_sentence(hub: Hub, tmp_path: Path) -> None:
    missing = plan(hub.url, tmp_path, "model.name=lakes/none")
    assert missing.returncode == 2
    (line,) = missing.stderr.strip().splitlines()
    assert "has no model lakes/none at revision main" in line


@pytest.mark.hub
@pytest.mark.skipif("LAKELENS_HUB" not in os.environ, reason="needs the Hugging Face hub: set LAKELENS_HUB=1")
def test_the_default_model_is_on_the_real_hub() -> None:
    model = resolve(ModelConfig(), Storage())
    assert (model.model_type, model.dim, len(model.labels)) == ("vit", 768, 1000)
    assert (model.preprocessing.height, model.preprocessing.resample) == (224, "bilinear")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_cuda_gives_the_vectors_of_the_cpu(precision: str, tmp_path: Path) -> None:
    config = ModelConfig.model_validate({"name": str(lakes.tiny_vit(tmp_path)), "precision": precision})
    model = resolve(config, Storage())
    pixels = np.random.default_rng(0).integers(0, 256, (5, lakes.SIZE, lakes.SIZE, 3), dtype=np.uint8)
    loaded = engines.load(model, config, EmbeddingConfig(), engine="torch", top_k=3, threads=1)
    cpu = engines.load(model, config, EmbeddingConfig(), engine="openvino", top_k=3, threads=1)
    a, b = loaded.predict(pixels).embeddings, cpu.predict(pixels).embeddings
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert (cosine > 0.99).all()
