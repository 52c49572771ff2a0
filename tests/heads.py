"""The head of a Ray cluster as `ray start` starts one, with its dashboard and a token, on 127.0.0.1."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

TOKEN = "5f0c3a9e7d1b4c2f8a6e0d9b7c5a3f1e"
START_S = 60


@dataclass(frozen=True)
class Head:
    """A running head, and the environment in which its clients are."""

    address: str
    environment: dict[str, str]
    metrics_url: str


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running(*, cpus: int = 2) -> Iterator[Head]:
    """At the end its processes are killed, by their ids."""
    port, dashboard, agent, metrics = (free_port() for _ in range(4))
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    # Idle workers wait for the next task, and metrics are soon seen.
    quick = {"RAY_num_workers_soft_limit": "16", "RAY_metrics_report_interval_ms": "1000"}
    binaries = str(Path(sys.executable).parent)
    everything = {**os.environ, **environment, **quick, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    ports = ["--port", str(port), "--dashboard-port", str(dashboard), "--node-ip-address", "127.0.0.1"]
    ports += ["--dashboard-agent-listen-port", str(agent), "--metrics-export-port", str(metrics)]
    with tempfile.TemporaryDirectory(prefix="lakelens-head-") as folder:
        command = [f"{binaries}/ray", "start", "--head", "--block", *ports, "--num-cpus", str(cpus)]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([*command, "--temp-dir", folder], env=everything, **silent)  # type: ignore[call-overload]
        try:
            _answers(dashboard, process)
            yield Head(f"http://127.0.0.1:{dashboard}", environment, f"http://127.0.0.1:{metrics}/metrics")
        finally:
            started = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            for one in started:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait(START_S)


def _answers(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(START_S * 10):
        assert process.poll() is None, "ray start failed"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("the dashboard does not answer")
