"""Pool sizes, by what the nodes have and may come to have; and actors that find no place."""

import math
import threading
import time

import pytest
import ray

from pipeline.cluster import node_resources, pools
from pipeline.cluster.node_resources import Node, Resources
from pipeline.config import PoolConfig, WorkersConfig
from pipeline.errors import ClusterError, TableError


def having(*kinds: Node, count: int = 1) -> Resources:
    return Resources(kinds * count)


NOTHING = Resources()


def test_one_machine_without_a_gpu_gets_one_predictor_on_all_its_cores() -> None:
    sizes = pools.sized(WorkersConfig(), having(Node(cpus=2)))
    assert (sizes.predictors.size.max_size, sizes.predictor_threads) == (1, 2)
    assert sizes.decoders.size.initial_size == sizes.decoders.size.max_size == 2  # one may hang


def test_every_gpu_gets_a_predictor_at_once_and_decoders_take_the_cpus() -> None:
    sizes = pools.sized(WorkersConfig(), having(Node(cpus=32, gpus=4), count=2))
    assert sizes.predictors.size.initial_size == sizes.predictors.size.max_size == 8
    assert sizes.predictors.accelerator == "GPU"
    assert pools.stage(sizes.predictors, "run")["num_gpus"] == 1
    assert sizes.decoders.size.max_size == 64


@pytest.mark.parametrize(("share", "places"), [(0.5, 8), (0.3, 12), (1.0, 4), (0.7, 4)])
def test_predictors_share_gpus_where_they_are_to_and_none_takes_parts_of_two(share: float, places: int) -> None:
    workers = WorkersConfig(gpus_per_predictor=share)
    sizes = pools.sized(workers, having(Node(cpus=8, gpus=2), count=2))
    assert sizes.predictors.size.max_size == places
    assert pools.stage(sizes.predictors, "run")["num_gpus"] == share
    assert sizes.predictors.shape["GPU"] == share


def test_every_tpu_chip_gets_a_predictor_in_a_pool_of_fixed_size() -> None:
    has = having(Node(cpus=4, tpus=4), Node(cpus=4))
    sizes = pools.sized(WorkersConfig(gpus_per_predictor=0.5), has, "TPU")
    assert (sizes.predictors.size.min_size, sizes.predictors.size.max_size) == (4, 4)
    stage = pools.stage(sizes.predictors, "run")
    assert (stage["resources"], stage["num_gpus"], stage["num_cpus"]) == ({"TPU": 1}, 0, 0)


def test_an_engine_that_uses_no_accelerator_asks_for_none() -> None:
    sizes = pools.sized(WorkersConfig(), having(Node(cpus=4, gpus=2), count=2), None)
    assert (sizes.predictors.size.max_size, pools.stage(sizes.predictors, "run")["num_gpus"]) == (2, 0)


FIXED = WorkersConfig(predictors=PoolConfig(max_size=50), decoders=PoolConfig(min_size=7, max_size=7))


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 16, 64, 1000])
@pytest.mark.parametrize("count", [1, 2, 10])
@pytest.mark.parametrize("workers", [WorkersConfig(), FIXED])
def test_all_decoders_have_a_place_and_nothing_else_asks_for_cpus(
    workers: WorkersConfig, cpus: int, count: int
) -> None:
    sizes = pools.sized(workers, having(Node(cpus=cpus), count=count))
    each = sizes.decoders.num_cpus
    assert 0 < each <= 1
    assert count * math.floor(cpus / each + 1e-9) >= sizes.decoders.size.max_size  # none takes parts of two nodes
    assert sizes.predictors.num_cpus == pools.reading(9)["num_cpus"] == 0


def test_sizes_from_the_config_are_kept() -> None:
    asked = PoolConfig(min_size=2, max_size=5)
    sizes = pools.sized(WorkersConfig(decoders=asked, predictors=asked), having(Node(cpus=4), count=4))
    assert (sizes.decoders.size, sizes.predictors.size) == (asked, asked)
    strategy = pools.stage(sizes.decoders, "run")["compute"]
    assert (strategy.min_size, strategy.max_size, strategy.initial_size) == (2, 5, 2)


def test_no_actor_is_started_for_which_there_is_no_block() -> None:
    sizes = pools.sized(WorkersConfig(), having(Node(cpus=32, gpus=4), count=2))
    assert sizes.for_blocks(1000) == sizes
    few = sizes.for_blocks(3)
    assert few.predictors.size == few.decoders.size == PoolConfig(min_size=1, max_size=3, initial_size=3)
    fixed = pools.sized(WorkersConfig(predictors=PoolConfig(min_size=4, max_size=4)), having(Node(cpus=2)))
    assert fixed.for_blocks(0).predictors.size == PoolConfig(min_size=1, max_size=1)
    assert few.decoders.num_cpus == 1


def test_a_cluster_without_nodes_is_one_sentence_unless_sizes_are_given() -> None:
    with pytest.raises(ClusterError, match=r"^The Ray cluster has no node with a CPU yet; start one, or give"):
        pools.sized(WorkersConfig(), NOTHING)
    workers = WorkersConfig(decoders=PoolConfig(max_size=24), predictors=PoolConfig(max_size=6), device="gpu")
    sizes = pools.sized(workers, NOTHING)
    assert (sizes.decoders.num_cpus, sizes.predictors.accelerator) == (1, "GPU")


def test_accelerators_that_come_later_are_asked_for_where_the_config_names_them_and_gives_sizes() -> None:
    cpus = having(Node(cpus=4))
    workers = WorkersConfig(predictors=PoolConfig(max_size=8), device="gpu")
    assert pools.offers(workers, cpus, "GPU")
    assert not pools.offers(WorkersConfig(), cpus, "GPU")
    assert not pools.offers(WorkersConfig(device="cpu"), having(Node(gpus=1)), "GPU")
    sizes = pools.sized(workers, cpus)
    assert (sizes.predictors.accelerator, sizes.predictors.at_first) == ("GPU", 1)
    with pytest.raises(ClusterError, match=r"^The Ray cluster has no node with a GPU yet; start one, or give"):
        pools.sized(WorkersConfig(device="gpu"), cpus)
    with pytest.raises(ClusterError, match=r"^workers\.device is gpu, which the engine of this run does not"):
        pools.sized(workers, cpus, None)


def test_decoders_that_come_with_more_nodes_ask_for_a_cpu_each() -> None:
    workers = WorkersConfig(decoders=PoolConfig(max_size=64, initial_size=4))
    assert pools.sized(workers, having(Node(cpus=4))).decoders.num_cpus == 1


def test_a_cpu_predictor_takes_most_of_a_node_where_the_pool_is_to_grow_so_that_each_node_gets_one() -> None:
    node = having(Node(cpus=4, memory=8e9))
    growing = WorkersConfig(predictors=PoolConfig(max_size=3))
    assert pools.sized(growing, node, None).predictors.memory == pytest.approx(0.51 * 8e9)
    assert pools.sized(WorkersConfig(), node, None).predictors.memory < 1e8
    odd = pools.sized(growing, having(Node(cpus=4, memory=8127489639.0)), None).predictors
    assert odd.memory == int(odd.memory)  # as Ray takes it; else none is found among those that wait


def test_a_pool_on_cpus_needs_a_node_to_begin_with() -> None:
    workers = WorkersConfig(decoders=PoolConfig(max_size=4), predictors=PoolConfig(max_size=4))
    with pytest.raises(ClusterError, match="has no node with a CPU yet"):
        pools.sized(workers, NOTHING, None)


def never() -> float:
    """Nothing was ever finished."""
    return 0.0


@pytest.mark.usefixtures("local_cluster")
def test_actors_that_wait_for_what_no_node_has_end_the_run_with_what_is_missing_and_what_nodes_have() -> None:
    gave_up = threading.Event()
    fitting = pools.sized(WorkersConfig(), having(Node(cpus=2)))
    large = pools.sized(WorkersConfig(device="tpu"), having(Node(cpus=2, tpus=1)), "TPU")
    sentence = (
        r"^Nothing was finished for 0\.3 s, and workers wait for a place, 1 for 1 TPU: [\d.]+ has free \d CPU.*"
        r"What was committed stays; add what is missing, and run again\.$"
    )

    class Actor:
        pass

    waiting = ray.remote(num_cpus=0, resources={"TPU": 1})(Actor).remote()
    with pytest.raises(ClusterError, match=sentence), pools.watched(large, 0.3, never, gave_up.set):
        assert gave_up.wait(20)
    gave_up.clear()
    with pools.watched(large, 0.3, time.monotonic, gave_up.set):
        time.sleep(1)
    with pools.watched(fitting, 0.1, never, gave_up.set):  # another one's actor
        time.sleep(0.5)
    assert not gave_up.is_set()
    del waiting


def test_a_state_that_cannot_be_had_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[object] = [RuntimeError("timed out"), None, "workers wait for a place"]

    def waiting(shapes: object) -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(node_resources, "waiting", waiting)
    gave_up, sizes = threading.Event(), pools.sized(WorkersConfig(), having(Node(cpus=2)))
    with (
        pytest.raises(ClusterError, match="workers wait for a place"),
        pools.watched(sizes, 0.05, never, gave_up.set),
    ):
        assert gave_up.wait(10)


def test_a_commit_that_is_in_doubt_is_told_before_actors_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the run would clear up what may land yet."""
    monkeypatch.setattr(node_resources, "waiting", lambda shapes: "workers wait for a place")
    gave_up, sizes = threading.Event(), pools.sized(WorkersConfig(), having(Node(cpus=2)))

    def commit() -> None:
        with pools.watched(sizes, 0.05, never, gave_up.set):
            assert gave_up.wait(10)
            raise TableError("in doubt")

    with pytest.raises(TableError, match="in doubt"):
        commit()
