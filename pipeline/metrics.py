"""What a run tells Ray's metrics, for Prometheus. It does not know when.

Every metric has the tag `run_id`.
"""

from ray.util.metrics import Counter, Gauge


def predictor(run_id: str) -> tuple[Gauge, Counter]:
    """Of one predictor: its micro-batch size in images, and the micro-batches that did not fit."""
    size = Gauge("lakelens_micro_batch_size", "Images in a predictor's micro-batch", ("run_id",))
    misfits = Counter("lakelens_out_of_memory_total", "Micro-batches that did not fit", ("run_id",))
    for metric in (size, misfits):
        metric.set_default_tags({"run_id": run_id})
    return size, misfits
