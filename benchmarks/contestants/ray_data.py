"""The same work as a Ray Data job that follows its documentation ("Working with Images", for a manifest of URIs).

It uses `download`, then Hugging Face's processor row by row, float32 pixels between the stages, and a float32
model. It gives labels and the CLS vector.
"""

import io
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
import transformers
from PIL import Image
from ray.data.expressions import download

from benchmarks import steady_rate

BATCH = 16


@cache
def processor(model: str) -> Any:
    """Load the image processor once in each process."""
    return transformers.AutoImageProcessor.from_pretrained(model)


def preprocess(row: dict[str, Any], model: str) -> dict[str, Any]:
    """Map a row's bytes to float32 pixels (C, H, W)."""
    image = Image.open(io.BytesIO(row["bytes"])).convert("RGB")
    pixels = processor(model)(images=image, return_tensors="np")["pixel_values"][0]
    return {"image_id": row["image_id"], "pixels": pixels}


class Classifier:
    """Pixels -> label, score and CLS vector, in float32."""

    def __init__(self, model: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.model = transformers.AutoModelForImageClassification.from_pretrained(model).eval()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        with torch.inference_mode():
            found = self.model(torch.from_numpy(np.stack(batch["pixels"])), output_hidden_states=True)
            scores, labels = found.logits.softmax(1).max(1)
        names = [self.model.config.id2label[int(label)] for label in labels]
        vectors = found.hidden_states[-1][:, 0].numpy()
        return {"image_id": batch["image_id"], "label": names, "score": scores.numpy(), "embedding": vectors}


class PixelSink:
    """Takes the place of the classifier if only the feed is measured."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"image_id": batch["image_id"]}


def rate(manifest: Path, model: str, threads: int, *, feed_only: bool = False) -> float:
    """Measure images/s on a Ray cluster of its own, without start-up."""
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        return _rate(manifest, model, threads, feed_only)
    finally:
        ray.shutdown()


def _rate(manifest: Path, model: str, threads: int, feed_only: bool) -> float:
    rows = ray.data.read_parquet(str(manifest)).repartition(8 * threads)
    pixels = rows.with_column("bytes", download("uri")).map(preprocess, fn_kwargs={"model": model})
    # As on a GPU, the classifier leaves all CPUs to the tasks.
    stage: dict[str, Any] = {"batch_size": BATCH, "compute": ray.data.ActorPoolStrategy(size=1), "num_cpus": 0}
    if feed_only:
        scored = pixels.map_batches(PixelSink, **stage)
    else:
        scored = pixels.map_batches(Classifier, fn_constructor_args=(model, threads), **stage)
    batches = scored.iter_batches(batch_size=None, batch_format="pyarrow")
    return steady_rate.of([(time.perf_counter(), batch.num_rows) for batch in batches])
