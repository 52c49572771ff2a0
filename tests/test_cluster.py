"""Pool sizes, and a run on a cluster of several nodes that somebody else started."""

import os
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from ray.exceptions import RayError

from pipeline import cluster
from pipeline.cluster import Resources
from pipeline.config import PoolConfig, WorkersConfig
from pipeline.errors import ClusterError, ModelError
from pipeline.run import run
from tests import chaos_cluster, lakes

ROWS = 5000


def test_one_machine_without_a_gpu_gets_one_predictor_on_all_its_cores() -> None:
    pools = cluster.pools(WorkersConfig(), Resources(cpus=2, gpus=0, nodes=1, smallest_node_cpus=2))
    assert (pools.predictors.size.max_size, pools.predictor_threads) == (1, 2)
    assert pools.decoders.size.initial_size == pools.decoders.size.max_size == 2  # one may hang


def test_every_gpu_gets_a_predictor_at_once_and_decoders_take_the_cpus() -> None:
    pools = cluster.pools(WorkersConfig(), Resources(cpus=64, gpus=8, nodes=2, smallest_node_cpus=32))
    assert pools.predictors.size.initial_size == pools.predictors.size.max_size == 8
    assert pools.predictors.accelerator == "GPU"
    assert cluster.stage(pools.predictors)["num_gpus"] == 1
    assert pools.decoders.size.max_size == 64


def test_every_tpu_chip_gets_a_predictor_in_a_pool_of_fixed_size() -> None:
    has = Resources(cpus=8, gpus=0, nodes=2, smallest_node_cpus=4, tpus=4)
    pools = cluster.pools(WorkersConfig(), has, "TPU")
    assert (pools.predictors.size.min_size, pools.predictors.size.max_size) == (4, 4)
    stage = cluster.stage(pools.predictors)
    assert (stage["resources"], stage["num_gpus"], stage["num_cpus"]) == ({"TPU": 1}, 0, 0)


def test_an_engine_that_uses_no_accelerator_asks_for_none() -> None:
    has = Resources(cpus=8, gpus=4, nodes=2, smallest_node_cpus=4)
    pools = cluster.pools(WorkersConfig(), has, None)
    assert (pools.predictors.size.max_size, cluster.stage(pools.predictors)["num_gpus"]) == (2, 0)


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 16, 64, 1000])
@pytest.mark.parametrize("nodes", [1, 2, 10])
@pytest.mark.parametrize(
    "workers",
    [WorkersConfig(), WorkersConfig(predictors=PoolConfig(max_size=50), decoders=PoolConfig(max_size=7))],
)
def test_all_decoders_have_a_place_and_nothing_else_asks_for_cpus(
    workers: WorkersConfig, cpus: int, nodes: int
) -> None:
    pools = cluster.pools(workers, Resources(cpus * nodes, 0, nodes, cpus))
    assert 0 < pools.decoders.num_cpus * pools.decoders.size.max_size <= cpus * nodes + 1e-9
    assert pools.decoders.num_cpus <= 1
    assert pools.predictors.num_cpus == cluster.reading(9)["num_cpus"] == 0


def test_sizes_from_the_config_are_kept() -> None:
    asked = PoolConfig(min_size=2, max_size=5)
    pools = cluster.pools(WorkersConfig(decoders=asked, predictors=asked), Resources(16, 0, 4, 4))
    assert (pools.decoders.size, pools.predictors.size) == (asked, asked)
    strategy = cluster.stage(pools.decoders)["compute"]
    assert (strategy.min_size, strategy.max_size, strategy.initial_size) == (2, 5, 2)


def test_what_a_worker_raised_comes_back_as_what_it_was() -> None:
    text = "Traceback\n  File x\npipeline.errors.ModelError: The model m is gone.\n\nUDF failed"
    with pytest.raises(ModelError, match=r"^The model m is gone\.$"), cluster.explained():
        raise RayError(text)
    with (
        pytest.raises(ClusterError, match=r"^Ray lost the work: ValueError: odd\.$"),
        cluster.explained(),
    ):
        raise RayError("Traceback\nValueError: odd\n\nUDF failed")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:9", r"^Cannot connect to the Ray cluster at 127\.0\.0\.1:9: nothing answers there\.$"),
        ("127.0.0.1:99999", r"^Cannot connect to the Ray cluster at 127\.0\.0\.1:99999: nothing answers there\.$"),
        ("ray://127.0.0.1:10001", r"^Cannot run through ray:.*host:6379\.$"),
    ],
)
def test_an_address_where_no_cluster_is_is_one_sentence_at_once(address: str, sentence: str) -> None:
    with pytest.raises(ClusterError, match=sentence), cluster.connected(address):
        raise AssertionError


def test_a_run_ends_once_nothing_was_finished_for_a_while_and_actors_have_no_place() -> None:
    sentence = r"^Nothing was finished for 0\.3 s, .* ask for 8 CPUs .* \(1\) have \d and 0\. .*run again"
    gave_up = threading.Event()
    with cluster.connected(None):
        large = cluster.pools(WorkersConfig(), Resources(cpus=8, gpus=0, nodes=2, smallest_node_cpus=4))
        with pytest.raises(ClusterError, match=sentence), cluster.watched(large, 0.3, gave_up.set):
            assert gave_up.wait(10)
        gave_up.clear()
        with cluster.watched(large, 0.3, gave_up.set) as moved:
            for _ in range(20):
                time.sleep(0.05)
                moved()
        fitting = cluster.pools(WorkersConfig(), Resources(cpus=2, gpus=0, nodes=1, smallest_node_cpus=2))
        with cluster.watched(fitting, 0.1, gave_up.set):
            time.sleep(0.5)
        assert not gave_up.is_set()


@pytest.mark.slow
def test_a_cluster_with_gpus_has_a_predictor_on_each_and_they_get_whole_blocks(tmp_path: Path) -> None:
    images = lakes.folder_of_images(tmp_path / "images", 4)
    rows = {"uri": [str(images[n % 4]) for n in range(1000)], "image_id": [f"{n:03}" for n in range(1000)]}
    pq.write_table(pa.table(rows), tmp_path / "manifest.parquet")
    settings = lakes.settings(tmp_path / "manifest.parquet", lakes.tiny_vit(tmp_path / "model"), tmp_path / "out")
    ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    try:
        assert run(settings).engine == "torch"
    finally:
        ray.shutdown()
    assert [row["image_id"] for row in lakes.predictions(tmp_path / "out")] == rows["image_id"]


@pytest.mark.slow
@pytest.mark.skipif("LAKELENS_EVERY_STEP" not in os.environ, reason="half a minute: a part of make soak")
def test_a_node_that_dies_and_is_not_replaced_does_not_hold_a_run_up_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on, or, where lost actors had work that Ray waits for, ends and says why. The cluster stays."""
    (image,) = lakes.folder_of_images(tmp_path / "images", 1)
    rows = {"uri": [str(image)] * ROWS, "image_id": [f"{number:05}" for number in range(ROWS)]}
    pq.write_table(pa.table(rows), tmp_path / "manifest.parquet")
    overrides = ("workers.wait_s=6", "output.commit_interval_s=1")
    manifest, model = tmp_path / "manifest.parquet", lakes.tiny_vit(tmp_path / "model")
    settings = lakes.settings(manifest, model, tmp_path / "out", *overrides)
    with chaos_cluster.mortal() as nodes:
        nodes.have_worker_node(True)
        second_commit = tmp_path / "out/predictions/_delta_log/00000000000000000003.json"

        def lose() -> None:
            while not second_commit.exists():
                time.sleep(0.05)
            nodes.lose_node(replaced=False)

        loser = threading.Thread(target=lose)
        loser.start()
        monkeypatch.setenv("RAY_ADDRESS", nodes.address)
        with cluster.connected(None) as resources:
            assert (resources.nodes, resources.cpus) == (2, 5)
        said = ""
        try:
            run(settings)
        except ClusterError as error:
            said = str(error)
            run(settings)
        loser.join()
        assert not ray.is_initialized()
        with cluster.connected(None) as resources:
            assert (resources.nodes, resources.cpus) == (1, 3)
    assert not said or "Nothing was finished for 6 s" in said
    assert [row["image_id"] for row in lakes.predictions(tmp_path / "out")] == rows["image_id"]
