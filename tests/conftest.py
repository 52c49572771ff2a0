"""What many tests share: an S3 server, a Ray cluster, a tiny model, a small lake."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import seaweed
from tests.support.sharing import has_ray, pytest_xdist_make_scheduler

__all__ = ["pytest_xdist_make_scheduler"]

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # of a suite that was started in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else what tests start and interrupt ignores it, too

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
os.environ.setdefault("RAY_worker_niceness", "0")  # else all that this machine does besides comes first
os.environ.setdefault("RAY_num_workers_soft_limit", "16")  # as a run's own cluster has it


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the user's is read or written: no cache, no credentials, no cluster."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LAKELENS_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in [*os.environ]:
            if name.startswith("AWS_") or name == "RAY_ADDRESS":
                patched.delenv(name)
        patched.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patched.setenv("AWS_CONFIG_FILE", os.devnull)
        patched.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweed.S3Server]:
    with seaweed.running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: seaweed.S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[seaweed.S3Server]:
    """The server, with the environment that leads to it; file systems of another one are forgotten."""
    from s3fs import S3FileSystem

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    yield s3_server
    S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def local_cluster(s3_server: seaweed.S3Server) -> None:
    """A Ray cluster of two logical CPUs and a logical GPU, whose workers can open the S3 server."""
    import ray

    size = {"num_cpus": 2, "num_gpus": 1, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patched:  # not patch.dict: Ray sets RAY_AUTH_MODE, for those that join
        for name, value in s3_server.environment.items():
            patched.setenv(name, value)
        ray.init(address="local", **size, log_to_driver=False, logging_level="ERROR")


@pytest.fixture
def ray_looks_anew() -> Iterator[None]:
    """For tests that change Ray's variables for tokens: Ray remembers what it saw, and a later cluster fails.

    It has to come before `monkeypatch`, which restores the variables.
    """
    from pipeline.cluster.ray_internals import reload_authentication

    yield
    reload_authentication()


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test hands work to the next one that shares its cluster."""
    yield
    if _shares(request.node):
        from tests.support import leftovers

        left = leftovers.killed()
        assert not left, f"left on the cluster: {', '.join(left)}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reverse-files", action="store_true", help="the last file first")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests with Ray come first: those that share a cluster, then those that start their own."""
    if config.getoption("reverse_files"):
        order = {path: -number for number, path in enumerate(dict.fromkeys(item.path for item in items))}
        items.sort(key=lambda item: order[item.path])
    items.sort(key=lambda item: (not _shares(item), not _starts(item), not has_ray(item.path)))


@pytest.hookimpl(trylast=True)  # behind the fixtures' own
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The cluster ends with the last of those that share it."""
    if _shares(item) and (nextitem is None or not _shares(nextitem)):
        import ray

        ray.shutdown()


def _shares(item: pytest.Item) -> bool:
    return "local_cluster" in getattr(item, "fixturenames", ())


def _starts(item: pytest.Item) -> bool:
    return item.get_closest_marker("ray") is not None


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViT with random weights, for 32x32 images."""
    from tests.support import lakes

    return lakes.tiny_vit(tmp_path_factory.mktemp("model"))
