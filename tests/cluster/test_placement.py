"""A run does not wait for ever for actors that Ray cannot place."""

import threading
import time

import pytest
import ray

from pipeline.cluster import node_resources, placement, pools
from pipeline.cluster.node_resources import Node, Resources
from pipeline.cluster.pools import Pools
from pipeline.config import WorkersConfig
from pipeline.errors import ClusterError, TableError


def small_pools() -> Pools:
    """Fit on a node with two CPUs."""
    return pools.plan_pools(WorkersConfig(), Resources((Node(cpus=2),)))


def never() -> float:
    """No progress."""
    return 0.0


@pytest.mark.usefixtures("local_cluster")
def test_a_run_whose_actors_have_no_place_ends_with_what_is_missing_and_what_is_free() -> None:
    gave_up = threading.Event()
    large = pools.plan_pools(WorkersConfig(device="tpu"), Resources((Node(cpus=2, tpus=1),)), "TPU")
    facts = r" 0\.3 s, .* 1 worker with 1 TPU\. Free: 2 CPU, 1 GPU, [\d.]+ GB on [\d.]+\. .* run again\.$"

    class Actor:
        pass

    waiting = ray.remote(num_cpus=0, resources={"TPU": 1})(Actor).remote()
    with pytest.raises(ClusterError, match=facts), placement.watched(large, 0.3, never, gave_up.set):
        assert gave_up.wait(20)
    gave_up.clear()
    with placement.watched(large, 0.3, time.monotonic, gave_up.set):
        time.sleep(1)
    with placement.watched(small_pools(), 0.1, never, gave_up.set):  # the actor is not of these pools
        time.sleep(0.5)
    assert not gave_up.is_set()
    del waiting


def test_a_cluster_that_does_not_tell_its_state_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[object] = [RuntimeError("timed out"), None, "Ray cannot place workers"]

    def unplaced(shapes: object) -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(node_resources, "unplaced", unplaced)
    gave_up, sizes = threading.Event(), small_pools()
    with (
        pytest.raises(ClusterError, match="Ray cannot place workers"),
        placement.watched(sizes, 0.05, never, gave_up.set),
    ):
        assert gave_up.wait(10)


def test_a_commit_in_doubt_is_reported_rather_than_unplaced_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run must not clear up what may land yet."""
    monkeypatch.setattr(node_resources, "unplaced", lambda shapes: "Ray cannot place workers")
    gave_up, sizes = threading.Event(), small_pools()

    def commit() -> None:
        with placement.watched(sizes, 0.05, never, gave_up.set):
            assert gave_up.wait(10)
            raise TableError("in doubt")

    with pytest.raises(TableError, match="in doubt"):
        commit()
