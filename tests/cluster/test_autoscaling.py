"""A run on a cluster that an autoscaler grows from one node to four, and makes small again."""

import os
import time
from pathlib import Path

import pytest

from pipeline.cluster.ray_internals import cluster_status
from pipeline.run import run
from tests.support import heads, lakes, staging, tracing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.skipif("LAKELENS_EVERY_STEP" not in os.environ, reason="a minute and a half: a part of make soak"),
]
ROWS = 12_000
SPOT = {"resources": {"CPU": 1, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 3}
RELEASED_S = 60


def alive(head: heads.Head) -> int:
    return len(cluster_status(head.gcs).free)


def test_pools_grow_with_the_nodes_that_are_added_for_them_and_idle_nodes_are_released(tmp_path: Path) -> None:
    overrides = (
        *("labels.top_k=1", "workers.device=gpu"),
        *("workers.predictors={max_size: 3}", "workers.decoders={max_size: 4}"),
    )
    settings, image_ids = lakes.many_rows(tmp_path, ROWS, *overrides)
    with heads.running(cpus=1, adds={"spot": SPOT}) as head, heads.client_of(head):
        while alive(head) != 1:
            time.sleep(0.1)
        summary = run(settings, address=head.gcs, stages=staging.TRACED)
        until = time.monotonic() + RELEASED_S
        while alive(head) > 1:
            assert time.monotonic() < until
            time.sleep(1)
    begun = [line for line in tracing.read(tmp_path / "out", "predictor") if line["what"] == "begun"]
    assert len({line["node"] for line in begun}) == 3  # the head has no accelerator
    assert (summary.account.total.ok, summary.device, summary.engine) == (ROWS, "GPU", "torch")
    assert [row["image_id"] for row in lakes.predictions(tmp_path / "out", "image_id")] == image_ids
