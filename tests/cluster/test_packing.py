"""What a job needs from this machine is packed here, before the cluster is asked for anything."""

import json
import resource
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import ray

from pipeline import config
from pipeline.cluster.submission import Submissions
from pipeline.errors import StorageError

ANSWERS = {"/api/version": {"ray_version": ray.__version__, "version": "4"}, "/api/jobs/": []}


class Dashboard(BaseHTTPRequestHandler):
    """A dashboard of a cluster without jobs."""

    def do_GET(self) -> None:
        body = json.dumps(ANSWERS.get(self.path)).encode()
        self.send_response(200 if self.path in ANSWERS else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *args: object) -> None: ...


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Dashboard) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(params=[8, 64], ids=["a module does not fit", "the archive of all modules does not fit"])
def small_files(request: pytest.FixtureRequest) -> Iterator[None]:
    """No file can grow beyond this many KiB, as on a nearly full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (request.param << 10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_full_temporary_folder_is_not_blamed_on_the_cluster(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings = config.parse(
        {
            "manifest": {"path": "s3://lake/m.parquet"},
            "output": {"path": "s3://lake/out"},
            "model": {"name": "a/b"},
        }
    )
    with pytest.raises(StorageError, match=f"temporary folder {tmp_path}.*: File too large.*TMPDIR"):
        Submissions(address).submit(settings)
    assert not list(tmp_path.iterdir())
