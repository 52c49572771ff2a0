"""What many tests share: an S3 server, a Ray cluster, a tiny model, a small lake."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import seaweed

SHARING = pytest.StashKey[set[Path]]()
"""Files whose tests use `local_cluster`."""

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # of a suite that was started in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else what tests start and interrupt ignores it, too

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
os.environ.setdefault("RAY_worker_niceness", "0")  # else all that this machine does besides comes first
os.environ.setdefault("RAY_num_workers_soft_limit", "16")  # as a run's own cluster has it


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the user's is read or written: no cache, no credentials, no cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAKELENS_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in [*os.environ]:
            if name.startswith("AWS_") or name == "RAY_ADDRESS":
                patch.delenv(name)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweed.S3Server]:
    with seaweed.running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: seaweed.S3Server, monkeypatch: pytest.MonkeyPatch) -> seaweed.S3Server:
    """The server, with the environment that leads to it."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(scope="session")
def local_cluster() -> None:
    """A Ray cluster of two logical CPUs, for the files that come first because they use it."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files whose tests share a cluster come first, one behind the other."""
    sharing = {item.path for item in items if "local_cluster" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in sharing)
    config.stash[SHARING] = sharing


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The cluster ends with the last of them: others start their own."""
    sharing = item.config.stash[SHARING]
    if item.path in sharing and (nextitem is None or nextitem.path not in sharing):
        import ray

        ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViT with random weights, for 32x32 images."""
    from tests import lakes

    return lakes.tiny_vit(tmp_path_factory.mktemp("model"))
