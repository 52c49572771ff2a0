"""What a run tells Ray's metrics, for Prometheus. It does not know when.

Every metric has the tag `run_id`.
"""

from ray.util.metrics import Gauge


def micro_batch_size(run_id: str) -> Gauge:
    """Of one predictor, in images. It falls where the device runs out of memory."""
    size = Gauge("lakelens_micro_batch_size", "Images in a predictor's micro-batch", ("run_id",))
    size.set_default_tags({"run_id": run_id})
    return size
