"""`make gpu`: what a CUDA device does with LakeLens, in under nine minutes and without a network.

It measures the bare engine, the whole job on drawn photos, how busy the device is, and a real lack of memory. Each
part is written to a JSON file as soon as it is known, and a part that fails is written with its error. Everything
runs on a CPU, too (`--device cpu`), in a smaller size, so that a test can run it.
"""

import argparse
import json
import os
import platform
import subprocess
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from benchmarks import steady_rate
from benchmarks.inputs import image_files, settings_for, vit_b16
from pipeline.config import EmbeddingConfig, ModelConfig
from pipeline.engines import loading
from pipeline.engines.base import Engine
from pipeline.engines.batch_sizer import BatchSizer, SettledSize
from pipeline.engines.batching import MicroBatches
from pipeline.errors import OutOfMemory
from pipeline.models.model import resolve
from pipeline.planning.account import Progress
from pipeline.run import run
from pipeline.storage.filesystems import Storage

MEASURE_S = 4.0
"""Time for one batch size, after a second of warming up."""
SMALL_SHARE = 0.05
"""The share of the device's memory that is left for the real lack of memory."""


@dataclass(frozen=True)
class Size:
    """How much is measured. `model` are settings of a ViT-B/16 that make it smaller.

    `compiled` are the batch sizes with torch.compile, which takes most of a minute for each.
    """

    model: dict[str, int]
    precisions: tuple[str, ...]
    batches: tuple[int, ...]
    compiled: tuple[int, ...]
    photos: int
    seconds: float


SIZES = {
    "cuda": Size({}, ("bf16", "fp16", "fp32"), (32, 64, 128, 256, 512), (256,), 24_576, MEASURE_S),
    "cpu": Size(
        {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96},
        ("fp32",),
        (4, 8),
        (),
        48,
        0.1,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(SIZES), default="cuda")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/gpu.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lakelens-gpu-") as work:
        measure(options.device, Path(work), options.out)


def measure(device: str, work: Path, out: Path) -> dict[str, Any]:
    """Measure all parts, write them to `out` one by one, and return them by name."""
    size, found = SIZES[device], dict[str, Any]()
    model = vit_b16(work / "model", **size.model)
    parts: dict[str, Callable[[], Any]] = {
        "machine": lambda: machine(device),
        "engine": lambda: [row for rows in _engines(model, size, device) for row in rows],
        "memory": lambda: lack_of_memory(model, size, device),
        "job": lambda: whole_job(model, size, work),
    }
    for name, part in parts.items():
        started = time.perf_counter()
        try:
            found[name] = part()
        except Exception:  # the other parts are still worth their time
            found[name] = {"error": traceback.format_exc()}
        found.setdefault("seconds", {})[name] = round(time.perf_counter() - started, 1)
        out.write_text(json.dumps(found, indent=2) + "\n")
        print(f"== {name}\n{_table(found[name])}", flush=True)
    return found


def machine(device: str) -> dict[str, Any]:
    """Describe the machine."""
    facts: dict[str, Any] = {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cuda": torch.version.cuda,
    }
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        facts |= {"card": card.name, "memory_gb": round(card.total_memory / 1e9, 1)}
        facts |= {"capability": f"{card.major}.{card.minor}", "tf32": torch.backends.cuda.matmul.allow_tf32}
    return facts


def _engines(model: str, size: Size, device: str) -> Iterator[list[dict[str, Any]]]:
    for precision in size.precisions:
        for compiled, batches in ((False, size.batches), (True, size.compiled)):
            try:
                engine = _engine(model, precision, device, compiled=compiled) if batches else None
                yield [_measured(engine, batch, size.seconds, compiled) for batch in batches if engine]
            except Exception as error:  # without a C++ compiler there is no torch.compile
                yield [{"precision": precision, "compiled": compiled, "error": f"{type(error).__name__}: {error}"}]


def _engine(model: str, precision: str, device: str, *, compiled: bool = False) -> Engine:
    config = ModelConfig.model_validate({"name": model, "precision": precision, "compile": compiled})
    share = 1.0 if device == "cuda" else 0.0
    return loading.load_engine(
        resolve(config, Storage()),
        config,
        EmbeddingConfig(),
        engine="torch",
        top_k=5,
        threads=os.cpu_count() or 1,
        share=share,
    )


def _measured(engine: Engine, batch: int, seconds: float, compiled: bool) -> dict[str, Any]:
    """Measure one batch size, with as many batches in flight as in a run."""
    pixels = _pixels(4 * batch)
    on_cuda = not engine.device.startswith("cpu")
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    engine.predict(pixels[:batch])
    engine.predict(pixels[:batch])
    images, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        sizer = BatchSizer(batch, SettledSize(batch))
        for _ in MicroBatches(sizer, lambda a, b: engine.start(pixels[a:b]), engine.in_flight).of_block(
            len(pixels)
        ):
            pass
        images += len(pixels)
    rate = images / (time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() / 1e9 if on_cuda else 0.0
    facts = {"precision": engine.precision, "compiled": compiled, "batch": batch}
    return {**facts, "images_per_s": round(rate, 1), "peak_gb": round(peak, 2)}


def lack_of_memory(model: str, size: Size, device: str) -> dict[str, Any]:
    """Give a device that has little memory a batch that does not fit, and compare what comes of it.

    A CPU has no such limit: there, the engine raises as a device would.
    """
    engine = _engine(model, size.precisions[-1], device)
    pixels = _pixels(max(size.batches))
    expected = engine.predict(pixels[:4]).embeddings
    refused = list[int]()
    sizer = BatchSizer(len(pixels), SettledSize(len(pixels)))
    with _little_memory(engine, device, refused):
        results = list(
            MicroBatches(sizer, lambda a, b: engine.start(pixels[a:b]), engine.in_flight).of_block(len(pixels))
        )
    rows = [one for one in results if one is not None]
    found = np.concatenate([one.embeddings for one in rows])
    difference = float(np.abs(found[:4] - expected).max())
    return {"rows": len(found), "of": len(pixels), "refused_batches": refused, "difference": difference}


@contextmanager
def _little_memory(engine: Engine, device: str, refused: list[int]) -> Iterator[None]:
    """Leave a device little memory, and note the batches that it refuses."""
    start, fits = engine.start, 2

    def noted(pixels: NDArray[np.uint8]) -> Callable[[], Any]:
        try:
            if device == "cpu" and len(pixels) > fits:
                raise OutOfMemory("a CPU has more memory than this")
            return start(pixels)
        except OutOfMemory:
            refused.append(len(pixels))
            raise

    engine.start = noted  # type: ignore[method-assign]
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(SMALL_SHARE)
    try:
        yield
    finally:
        engine.start = start  # type: ignore[method-assign]
        if device == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)


def whole_job(model: str, size: Size, work: Path) -> dict[str, Any]:
    """Run the whole job on drawn photos, with all cores decoding."""
    photos = image_files(None, work, size.photos)
    seen: list[tuple[float, int]] = []

    def note(progress: Progress) -> None:
        if new := progress.predicted - sum(images for _, images in seen):
            seen.append((progress.elapsed_s, new))

    with _utilisation() as used:
        summary = run(settings_for(photos, model, "auto", work), on_progress=note)
    seconds = summary.worker_seconds
    return {
        "images": size.photos,
        "ok": summary.account.total.ok,
        "device": summary.device,
        "engine": summary.engine,
        "images_per_s": round(summary.images_per_s, 1),
        "steady_images_per_s": round(steady_rate.of(seen), 1) if len(seen) > 2 else None,
        "bottleneck": seconds.bottleneck,
        "predictors_busy": round(seconds.predictors_busy, 3),
        "decoders_busy": round(seconds.decoders_busy, 3),
        "card_busy_percent": used,
    }


@contextmanager
def _utilisation() -> Iterator[list[int]]:
    """Ask nvidia-smi twice a second how busy the card is; an empty list where there is none."""
    found, done = list[int](), threading.Event()
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]

    def ask() -> None:
        while not done.wait(0.5):
            try:
                answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603
            except (OSError, subprocess.SubprocessError):
                return
            found.append(int(answer.stdout.split()[0]))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def _pixels(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)


def _table(found: Any) -> str:
    rows = found if isinstance(found, list) else [found]
    return "\n".join("  ".join(f"{name} {value}" for name, value in row.items()) for row in rows)


if __name__ == "__main__":
    main()
