"""How busy the feed keeps an accelerator: `python -m benchmarks.busy --images FOLDER`.

First it measures the rate of the feed. Then it runs the real predictor on a simulated device with 0.8 of this
rate, on the same Ray cluster, which has a logical GPU. Ideally the device always has work.
"""

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path
from uuid import uuid4

import ray

from benchmarks import fixed_rate_device
from benchmarks.contestants import lakelens
from benchmarks.inputs import image_files, settings_for, vit_b16, without_output
from pipeline.cluster import connection, node_resources, pools, stages
from pipeline.cluster.run_work import RunWork
from pipeline.cluster.stages import Setup
from pipeline.config import RunConfig
from pipeline.planning import claim

SHARE = 0.8
"""The rate of the device as a share of the rate of the feed."""
TINY = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "patch_size": 32,
    "num_labels": 10,
}
"""Settings of a model with input of the usual size and almost no computation."""


def busy(settings: RunConfig, rate: float, log: Path) -> float:
    """Return the share of the second half of a run's time in which a device of `rate` images/s works."""
    run_id = uuid4().hex
    assignment = claim.plan_and_claim(settings, run_id)
    assert isinstance(assignment, claim.Assignment)
    with assignment.heartbeat, connection.connected(None), RunWork(run_id) as work:
        sizes = pools.plan_pools(settings.workers, node_resources.live(), "GPU")
        setup = Setup(settings, assignment, sizes, "torch", lakelens.BLOCK_ROWS)
        decoded = stages.images(stages.rows(setup), setup)
        scored = fixed_rate_device.predicted(
            decoded, sizes.predictors, settings, assignment, lakelens.BLOCK_ROWS, rate, log
        )
        list(work.blocks(scored))
    return fixed_rate_device.busy_share(log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of images; default: drawn ones")
    parser.add_argument("--count", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="lakelens-busy-"))
    ray.init(address="local", num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        images = image_files(options.images, work, options.count)
        model = vit_b16(work / "model", **TINY)
        settings = settings_for(images, model, "auto", work)
        shares = []
        for repeat in range(options.repeats):
            rate = lakelens.feed(settings)
            shares.append(busy(without_output(settings), SHARE * rate, work / f"{repeat}.log"))
            print(f"feed {rate:.0f} images/s; a device of {SHARE * rate:.0f} images/s is busy {shares[-1]:.1%}")
        print(f"median {statistics.median(shares):.1%}")
    finally:
        ray.shutdown()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
