"""Connections to clusters, and runs on clusters that somebody else started."""

import os
import threading
import time
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.exceptions import RayError

from pipeline.cluster import connection, node_resources
from pipeline.errors import ClusterError, ModelError
from pipeline.run import run
from tests.chaos import cluster as chaos_cluster
from tests.support import lakes, staging, tracing

ROWS = 10_000


def test_an_error_of_a_worker_keeps_its_type_and_message() -> None:
    text = "Traceback\n  File x\npipeline.errors.ModelError: The model m is gone.\n\nUDF failed"
    with pytest.raises(ModelError, match=r"^The model m is gone\.$"), connection.translated_errors():
        raise RayError(text)
    with (
        pytest.raises(ClusterError, match=r"ValueError: odd\. "),
        connection.translated_errors(),
    ):
        raise RayError("Traceback\nValueError: odd\n\nUDF failed")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:9", r"127\.0\.0\.1:9: nothing answers"),
        ("127.0.0.1:99999", r"127\.0\.0\.1:99999: nothing answers"),
        ("ray://127.0.0.1:10001", r"ray://127\.0\.0\.1:10001: .* host:6379"),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(address: str, sentence: str) -> None:
    with pytest.raises(ClusterError, match=sentence), connection.connected(address):
        raise AssertionError


@pytest.mark.slow
@pytest.mark.usefixtures("local_cluster")
def test_two_predictors_can_share_a_gpu_and_get_whole_blocks(tmp_path: Path) -> None:
    settings, ids = lakes.many_rows(tmp_path, 1000, "workers.device=auto", "workers.gpus_per_predictor=0.5")
    summary = run(settings)
    assert (summary.engine, summary.device) == ("torch", "GPU")
    assert [row["image_id"] for row in lakes.predictions(tmp_path / "out")] == ids


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif("LAKELENS_EVERY_STEP" not in os.environ, reason="half a minute: a part of make soak")
def test_each_chip_of_a_tpu_node_gets_a_predictor_and_other_nodes_get_none(tmp_path: Path) -> None:
    """Placement only: chips are logical, and the engine is a stand-in."""
    settings, ids = lakes.many_rows(tmp_path, 2000, "workers.device=tpu")
    with patch.dict(os.environ, chaos_cluster.ENVIRONMENT):
        nodes_of = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        try:
            chips = nodes_of.add_node(num_cpus=1, resources={"TPU": 2}).node_id
            summary = run(settings, address=nodes_of.address, stages=staging.TRACED)
        finally:
            nodes_of.shutdown()
    assert (summary.engine, summary.device) == ("xla", "TPU")
    begun = [line for line in tracing.read(tmp_path / "out", "predictor") if line["what"] == "begun"]
    assert {line["node"] for line in begun} == {chips}
    assert len({line["worker"] for line in begun}) == 2
    assert [row["image_id"] for row in lakes.predictions(tmp_path / "out", "image_id")] == ids


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif("LAKELENS_EVERY_STEP" not in os.environ, reason="half a minute: a part of make soak")
def test_a_run_does_not_wait_for_ever_for_a_node_that_died_and_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run continues, or ends with the reason if Ray waits for work of lost actors. The cluster stays."""
    (image,) = lakes.folder_of_images(tmp_path / "images", 1)
    rows = {"uri": [str(image)] * ROWS, "image_id": [f"{number:05}" for number in range(ROWS)]}
    pq.write_table(pa.table(rows), tmp_path / "manifest.parquet")
    overrides = ("workers.decoders=auto", "workers.wait_s=6", "output.commit_interval_s=1")
    manifest, model = tmp_path / "manifest.parquet", lakes.tiny_vit(tmp_path / "model")
    settings = lakes.settings(manifest, model, tmp_path / "out", *overrides)
    with chaos_cluster.mortal() as mortal:
        mortal.have_worker_node(True)
        second_commit = tmp_path / "out/predictions/_delta_log/00000000000000000003.json"

        def lose() -> None:
            while not second_commit.exists():
                time.sleep(0.05)
            mortal.lose_node(replaced=False)

        loser = threading.Thread(target=lose)
        loser.start()
        monkeypatch.setenv("RAY_ADDRESS", mortal.address)
        with connection.connected(None):
            assert (node_resources.live().cpu_nodes, node_resources.live().cpus) == (2, 5)
        said = ""
        try:
            run(settings)
        except ClusterError as error:
            said = str(error)
            run(settings)
        assert not loser.is_alive()  # it was lost in the middle of the run
        assert not ray.is_initialized()
        with connection.connected(None):
            assert (node_resources.live().cpu_nodes, node_resources.live().cpus) == (1, 3)
    assert not said or "no progress for 6 s" in said
    assert [row["image_id"] for row in lakes.predictions(tmp_path / "out")] == rows["image_id"]
