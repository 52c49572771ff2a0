"""Pool sizes, by what the nodes have now and may have later."""

import math

import pytest

from pipeline.cluster import pools
from pipeline.cluster.node_resources import Node, Resources
from pipeline.config import PoolConfig, WorkersConfig
from pipeline.errors import ClusterError


def having(*kinds: Node, count: int = 1) -> Resources:
    return Resources(kinds * count)


NOTHING = Resources()


def test_one_machine_without_a_gpu_gets_one_predictor_on_all_its_cores() -> None:
    sizes = pools.plan_pools(WorkersConfig(), having(Node(cpus=2)))
    assert (sizes.predictors.size.max_size, sizes.predictor_threads) == (1, 2)
    assert sizes.decoders.size.initial_size == sizes.decoders.size.max_size == 2  # one may hang


def test_every_gpu_gets_a_predictor_at_once_and_decoders_take_the_cpus() -> None:
    sizes = pools.plan_pools(WorkersConfig(), having(Node(cpus=32, gpus=4), count=2))
    assert sizes.predictors.size.initial_size == sizes.predictors.size.max_size == 8
    assert sizes.predictors.accelerator == "GPU"
    assert pools.actor_options(sizes.predictors, "run")["num_gpus"] == 1
    assert sizes.decoders.size.max_size == 64


@pytest.mark.parametrize(("share", "places"), [(0.5, 8), (0.3, 12), (1.0, 4), (0.7, 4)])
def test_predictors_can_share_gpus_but_none_spans_two(share: float, places: int) -> None:
    workers = WorkersConfig(gpus_per_predictor=share)
    sizes = pools.plan_pools(workers, having(Node(cpus=8, gpus=2), count=2))
    assert sizes.predictors.size.max_size == places
    assert pools.actor_options(sizes.predictors, "run")["num_gpus"] == share
    assert sizes.predictors.shape["GPU"] == share


def test_every_tpu_chip_gets_a_predictor_in_a_pool_of_fixed_size() -> None:
    has = having(Node(cpus=4, tpus=4), Node(cpus=4))
    sizes = pools.plan_pools(WorkersConfig(gpus_per_predictor=0.5), has, "TPU")
    assert (sizes.predictors.size.min_size, sizes.predictors.size.max_size) == (4, 4)
    stage = pools.actor_options(sizes.predictors, "run")
    assert (stage["resources"], stage["num_gpus"], stage["num_cpus"]) == ({"TPU": 1}, 0, 0)


def test_an_engine_that_uses_no_accelerator_asks_for_none() -> None:
    sizes = pools.plan_pools(WorkersConfig(), having(Node(cpus=4, gpus=2), count=2), None)
    assert (sizes.predictors.size.max_size, pools.actor_options(sizes.predictors, "run")["num_gpus"]) == (2, 0)


FIXED = WorkersConfig(predictors=PoolConfig(max_size=50), decoders=PoolConfig(min_size=7, max_size=7))


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 16, 64, 1000])
@pytest.mark.parametrize("count", [1, 2, 10])
@pytest.mark.parametrize("workers", [WorkersConfig(), FIXED])
def test_all_decoders_fit_and_nothing_else_asks_for_cpus(workers: WorkersConfig, cpus: int, count: int) -> None:
    sizes = pools.plan_pools(workers, having(Node(cpus=cpus), count=count))
    each = sizes.decoders.num_cpus
    assert 0 < each <= 1
    assert count * math.floor(cpus / each + 1e-9) >= sizes.decoders.size.max_size  # none takes parts of two nodes
    assert sizes.predictors.num_cpus == pools.reader_options(9)["num_cpus"] == 0


def test_sizes_from_the_config_are_kept() -> None:
    asked = PoolConfig(min_size=2, max_size=5)
    sizes = pools.plan_pools(WorkersConfig(decoders=asked, predictors=asked), having(Node(cpus=4), count=4))
    assert (sizes.decoders.size, sizes.predictors.size) == (asked, asked)
    strategy = pools.actor_options(sizes.decoders, "run")["compute"]
    assert (strategy.min_size, strategy.max_size, strategy.initial_size) == (2, 5, 2)


def test_no_more_actors_are_started_than_there_are_blocks() -> None:
    sizes = pools.plan_pools(WorkersConfig(), having(Node(cpus=32, gpus=4), count=2))
    assert sizes.limited_to(1000) == sizes
    few = sizes.limited_to(3)
    assert few.predictors.size == few.decoders.size == PoolConfig(min_size=1, max_size=3, initial_size=3)
    fixed = pools.plan_pools(WorkersConfig(predictors=PoolConfig(min_size=4, max_size=4)), having(Node(cpus=2)))
    assert fixed.limited_to(0).predictors.size == PoolConfig(min_size=1, max_size=1)
    assert few.decoders.num_cpus == 1


def test_a_cluster_without_nodes_needs_sizes_in_the_config() -> None:
    with pytest.raises(
        ClusterError, match=r"no node with a CPU .* workers\.device, workers\.decoders and workers\.predictors"
    ):
        pools.plan_pools(WorkersConfig(), NOTHING)
    workers = WorkersConfig(decoders=PoolConfig(max_size=24), predictors=PoolConfig(max_size=6), device="gpu")
    sizes = pools.plan_pools(workers, NOTHING)
    assert (sizes.decoders.num_cpus, sizes.predictors.accelerator) == (1, "GPU")


def test_accelerators_that_come_later_are_used_if_the_config_names_them_and_gives_sizes() -> None:
    cpus = having(Node(cpus=4))
    workers = WorkersConfig(predictors=PoolConfig(max_size=8), device="gpu")
    assert pools.uses(workers, cpus, "GPU")
    assert not pools.uses(WorkersConfig(), cpus, "GPU")
    assert not pools.uses(WorkersConfig(device="cpu"), having(Node(gpus=1)), "GPU")
    sizes = pools.plan_pools(workers, cpus)
    assert (sizes.predictors.accelerator, sizes.predictors.initial_size) == ("GPU", 1)
    with pytest.raises(ClusterError, match=r"no node with a GPU .* workers\.predictors"):
        pools.plan_pools(WorkersConfig(device="gpu"), cpus)
    with pytest.raises(ClusterError, match=r"workers\.device is gpu, .* model\.engine"):
        pools.plan_pools(workers, cpus, None)


def test_decoders_of_a_growing_pool_ask_for_a_cpu_each() -> None:
    workers = WorkersConfig(decoders=PoolConfig(max_size=64, initial_size=4))
    assert pools.plan_pools(workers, having(Node(cpus=4))).decoders.num_cpus == 1


def test_a_cpu_predictor_of_a_growing_pool_asks_for_most_of_a_node_so_that_each_node_gets_one() -> None:
    node = having(Node(cpus=4, memory=8e9))
    growing = WorkersConfig(predictors=PoolConfig(max_size=3))
    assert pools.plan_pools(growing, node, None).predictors.memory == pytest.approx(0.51 * 8e9)
    assert pools.plan_pools(WorkersConfig(), node, None).predictors.memory < 1e8
    odd = pools.plan_pools(growing, having(Node(cpus=4, memory=8127489639.0)), None).predictors
    assert odd.memory == int(odd.memory)  # as Ray takes it; else none is found among those that wait


def test_a_pool_on_cpus_needs_a_node_to_begin_with() -> None:
    workers = WorkersConfig(decoders=PoolConfig(max_size=4), predictors=PoolConfig(max_size=4))
    with pytest.raises(ClusterError, match="has no node with a CPU yet"):
        pools.plan_pools(workers, NOTHING, None)
