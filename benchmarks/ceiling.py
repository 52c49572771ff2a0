"""What the predictor stage loses: `python -m benchmarks.ceiling [BLOCK_ROWS] [RATE,RATE,...] [SECONDS]`.

A decoder hands over ready pixels at once to the real predictor, whose device has a fixed rate in images/s. Prints
one JSON line for each rate: the share of time in which the device works, measured in the second half of the run,
and the images/s that it delivers.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import numpy as np
import pyarrow as pa
import ray

from benchmarks import fixed_rate_device
from benchmarks.fake_stages import as_decoded
from benchmarks.inputs import settings_of_rows
from pipeline import schema
from pipeline.cluster import connection, node_resources, pools, stages
from pipeline.cluster.run_work import RunWork
from pipeline.cluster.stages import Setup
from pipeline.planning import claim

SIDE = 224
"""Height and width of the images, in pixels."""
OBJECT_STORE_BYTES = 4_000_000_000


class ReadyDecoder:
    """Pending rows -> the same rows with the same random pixels again and again."""

    def __init__(self, block_rows: int, run_id: str) -> None:
        images = np.random.default_rng(1).integers(0, 255, (block_rows, SIDE * SIDE * 3), np.uint8)
        self._pixels = pa.array([image.tobytes() for image in images], schema.PIXELS_TYPE)

    def __call__(self, rows: pa.Table) -> pa.Table:
        return as_decoded(rows).append_column(schema.PIXELS, self._pixels.slice(0, rows.num_rows))


def measure(block_rows: int, rate: float, seconds: float, folder: Path) -> dict[str, float]:
    """Keep a device of `rate` images/s busy for some `seconds`, and return the figures."""
    run_id, log = uuid4().hex, folder / "log"
    settings = settings_of_rows(folder, int(rate * seconds))
    assignment = claim.plan_and_claim(settings, run_id)
    assert isinstance(assignment, claim.Assignment)
    with assignment.heartbeat, connection.connected(None), RunWork(run_id) as work:
        sizes = pools.plan_pools(settings.workers, node_resources.live(), "GPU")
        rows = stages.rows(Setup(settings, assignment, sizes, "torch", block_rows))
        fed = pools.map_actors(rows, ReadyDecoder, sizes.decoders, block_rows=block_rows, run_id=run_id)
        scored = fixed_rate_device.predicted(fed, sizes.predictors, settings, assignment, block_rows, rate, log)
        count = sum(rows for _, rows in work.blocks(scored))
    busy = fixed_rate_device.busy_share(log)
    return {
        "block": block_rows,
        "device_images_per_s": rate,
        "busy": round(busy, 3),
        "delivered": round(rate * busy),
        "rows": count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("block_rows", type=int, nargs="?", default=512, help="rows of a block")
    parser.add_argument("rates", nargs="?", default="500,1000,2000,4000", help="of devices, in images/s")
    parser.add_argument("seconds", type=float, nargs="?", default=12.0, help="work for each device")
    options = parser.parse_args()
    ray.init(
        address="local",
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=OBJECT_STORE_BYTES,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        for rate in map(float, options.rates.split(",")):
            with TemporaryDirectory(prefix="lakelens-ceiling-") as folder:
                print(json.dumps(measure(options.block_rows, rate, options.seconds, Path(folder))), flush=True)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
