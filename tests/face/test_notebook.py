"""The example notebook, executed as it stands; and a run that a notebook interrupts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel
from nbclient import NotebookClient

from tests.support import lakes

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
ROWS = 20_000
pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.fixture
def _kernel_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


@pytest.mark.usefixtures("_kernel_environment")
def test_the_example_notebook_runs_as_it_stands_and_shows_its_progress_in_one_line(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=150, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    lines = [output.data["text/plain"] for output in outputs if output.output_type == "display_data"]
    assert lines[0].startswith("72 / 72 images")  # 60 good pictures and 12 bad files
    results = [output.data["text/plain"] for output in outputs if output.output_type == "execute_result"]
    assert "ok=60" in results[1]


@pytest.fixture
def kernel(_kernel_environment: None, tmp_path: Path) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    manager, client = start_new_kernel(cwd=str(tmp_path))
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_run_that_a_notebook_interrupts_commits_what_is_predicted(
    kernel: tuple[KernelManager, BlockingKernelClient], tmp_path: Path
) -> None:
    config, _ = lakes.many_rows(tmp_path, ROWS, "output.commit_interval_s=1")
    (tmp_path / "lake.yaml").write_text(config.to_yaml())
    manager, client = kernel
    asked = client.execute(
        "from pipeline import load_config, run_config\n"
        "summary = run_config(load_config('lake.yaml'))\n"
        "total = summary.account.total\n"
        "print(summary.stopped, total.ok, total.left)"
    )
    interrupted, printed = False, ""
    while not printed:
        message: dict[str, Any] = client.get_iopub_msg(timeout=120)
        if message["parent_header"].get("msg_id") != asked:
            continue
        assert message["msg_type"] != "error", message["content"]
        if message["msg_type"] == "update_display_data" and not interrupted:
            interrupted = True
            manager.interrupt_kernel()
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            printed = message["content"]["text"]
    stopped, ok, left = json.loads("[" + printed.lower().strip().replace(" ", ",") + "]")
    assert interrupted
    assert stopped
    assert 0 < ok < ROWS
    assert ok + left == ROWS
    assert len(lakes.predictions(tmp_path / "out", "image_id")) == ok
