"""How busy an accelerator is kept: `python -m benchmarks.busy --images FOLDER`.

First the rate of the feed is measured. Then, on the same Ray cluster, which has a logical GPU, the predictor has
an engine that sleeps for each image: a device that takes 0.8 of what the feed gives, and ideally always has work.
"""

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path
from uuid import uuid4

import ray

from benchmarks import feed, fixed_rate_device
from benchmarks.bench import emptied, images_in, settings_for, vit_b16
from pipeline.cluster import connection, node_resources, pools, stages
from pipeline.cluster.run_work import RunWork
from pipeline.cluster.stages import Setup
from pipeline.config import RunConfig
from pipeline.planning import claim

SHARE = 0.8
"""What the device takes of what the feed gives."""
TINY = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "patch_size": 32,
    "num_labels": 10,
}
"""A model with input of the usual size that computes next to nothing."""


def busy(settings: RunConfig, rate: float, log: Path) -> float:
    """Return the share of the second half of a run's time in which a device of `rate` images/s works."""
    run_id = uuid4().hex
    assignment = claim.plan_and_claim(settings, run_id)
    assert isinstance(assignment, claim.Assignment)
    with assignment.heartbeat, connection.connected(None), RunWork(run_id) as work:
        sizes = pools.plan_pools(settings.workers, node_resources.live(), "GPU")
        setup = Setup(settings, assignment, sizes, "torch", feed.ROWS)
        decoded = stages.images(stages.rows(setup), setup)
        scored = fixed_rate_device.predicted(decoded, sizes.predictors, settings, assignment, feed.ROWS, rate, log)
        list(work.blocks(scored))
    return fixed_rate_device.busy_share(log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of images; drawn if not given")
    parser.add_argument("--count", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="lakelens-busy-"))
    ray.init(address="local", num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        images = images_in(options.images, work, options.count)
        model = vit_b16(work / "model", **TINY)
        settings = settings_for(images, model, "auto", work)
        shares = []
        for repeat in range(options.repeats):
            rate = feed.lakelens(emptied(settings))
            shares.append(busy(emptied(settings), SHARE * rate, work / f"{repeat}.log"))
            print(f"feed {rate:.0f} images/s; a device of {SHARE * rate:.0f} images/s is busy {shares[-1]:.1%}")
        print(f"median {statistics.median(shares):.1%}")
    finally:
        ray.shutdown()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
