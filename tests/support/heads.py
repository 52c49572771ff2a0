"""The head of a Ray cluster as `ray start` starts one, with its dashboard and a token, on 127.0.0.1."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from pipeline.cluster.ray_internals import reload_authentication
from tests.support import orphans

TOKEN = "5f0c3a9e7d1b4c2f8a6e0d9b7c5a3f1e"
START_S = 60
FAKE_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
SCALING = {
    **{"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1"},
    **{"RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID},
}
"""For an autoscaler that adds processes for nodes."""


@dataclass(frozen=True)
class Head:
    """A running head, and the environment in which its clients are."""

    address: str
    environment: dict[str, str]
    metrics_url: str
    gcs: str


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running(*, cpus: int = 2, adds: Mapping[str, Any] | None = None, plain: bool = False) -> Iterator[Head]:
    """At the end its processes are killed, by their ids.

    With `adds`, kinds of nodes by their names, an autoscaler adds such nodes, as processes, and ends them when
    they were idle for six seconds. A `plain` one wants no token, and its PATH lacks its Python, as where
    `.venv/bin/ray start --head` starts it.
    """
    port, dashboard, agent, metrics = (free_port() for _ in range(4))
    secret = {"RAY_AUTH_MODE": "disabled"} if plain else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    environment = {**secret, "RAY_USAGE_STATS_ENABLED": "0"}
    # Idle workers wait for the next task, and metrics are soon seen.
    quick = {"RAY_num_workers_soft_limit": "16", "RAY_metrics_report_interval_ms": "1000"}
    binaries = str(Path(sys.executable).parent)
    quick |= SCALING if adds else {}
    path = os.defpath if plain else f"{binaries}{os.pathsep}{os.environ['PATH']}"
    everything = {**os.environ, **environment, **quick, "PATH": path}
    ports = ["--port", str(port), "--dashboard-port", str(dashboard), "--node-ip-address", "127.0.0.1"]
    ports += ["--dashboard-agent-listen-port", str(agent), "--metrics-export-port", str(metrics)]
    with tempfile.TemporaryDirectory(prefix="lakelens-head-") as folder:
        command = [f"{binaries}/ray", "start", "--head", "--block", *ports, "--num-cpus", str(cpus)]
        if adds:
            config = Path(folder) / "autoscaling.json"
            config.write_text(json.dumps(_autoscaling(f"127.0.0.1:{port}", cpus, adds)))
            command += ["--autoscaling-config", str(config)]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command += ["--temp-dir", folder]
        ends = partial(orphans.none_left, signal.SIGTERM)  # with what it has started
        process = subprocess.Popen(command, env=everything, preexec_fn=ends, **silent)  # type: ignore[call-overload]
        try:
            _answers(dashboard, process)
            metrics_url = f"http://127.0.0.1:{metrics}/metrics"
            yield Head(f"http://127.0.0.1:{dashboard}", environment, metrics_url, f"127.0.0.1:{port}")
        finally:
            started = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            for one in started:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait(START_S)


def _autoscaling(gcs: str, cpus: int, adds: Mapping[str, Any]) -> dict[str, Any]:
    """A config for `ray start`; a provider of its own kind would read files that are not in Ray's wheel."""
    head = {"resources": {"CPU": cpus}, "node_config": {}, "max_workers": 0}
    lists = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
    lists += ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files")
    return {
        "cluster_name": "fake",
        "max_workers": sum(kind["max_workers"] for kind in adds.values()),
        "provider": {
            **{"type": "external", "module": FAKE_PROVIDER, "gcs_address": gcs},
            **{"launch_multiple": True, "head_node_id": FAKE_HEAD_NODE_ID},
        },
        "available_node_types": {"ray.head.default": head, **adds},
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 0.1,
        "auth": {},
        "file_mounts": {},
        **{name: [] for name in lists},
    }


def _answers(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(START_S * 10):
        assert process.poll() is None, "ray start failed"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("the dashboard does not answer")


@contextmanager
def client_of(head: Head) -> Iterator[None]:
    """This process has the head's token."""
    with patch.dict(os.environ, head.environment):
        reload_authentication()  # Ray remembers the variables of its first look
        yield
    reload_authentication()
