"""`make bench`: the whole job against the bare engine and Hugging Face's pipeline, side by side.

They alternate in one go, several times over, on the same images and weights; machines are noisy: read the ratios.
Without options it draws its images and takes a ViT-B/16 with random weights.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from PIL import Image

from pipeline import config, engines
from pipeline.decode import decode
from pipeline.demo.lake import make_lake
from pipeline.model import resolve
from pipeline.run import run
from pipeline.storage import Storage


def main() -> None:
    options = _options()
    work = Path(tempfile.mkdtemp(prefix="lakelens-bench-"))
    try:
        model = options.model or _vit_b16(work / "model")
        images = _images(options.images, work, options.count)
        contestants = _contestants(model, images, work)
        rates: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(options.repeats):
            for name, contestant in contestants.items():
                rates[name].append(contestant())
                print(f"{name:20} {rates[name][-1]:8.2f} images/s", flush=True)
        _report(rates, len(images), options.out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="a folder of images; drawn if not given")
    parser.add_argument("--model", help="a Hugging Face folder or hub id; else a ViT-B/16 with random weights")
    parser.add_argument("--count", type=int, default=250, help="images in each measurement")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each contestant")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results.json"))
    return parser.parse_args()


def _vit_b16(folder: Path) -> str:
    torch.manual_seed(0)
    transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000)).save_pretrained(folder)
    transformers.ViTImageProcessorPil().save_pretrained(folder)
    return str(folder)


def _images(folder: Path | None, work: Path, count: int) -> list[Path]:
    """`count` readable images, repeated if there are fewer."""
    if folder is None:
        manifest = pq.read_table(make_lake(work / "lake", images=min(count, 250))).to_pylist()
        found = [Path(row["uri"]) for row in manifest if row["truth"] is not None]
    else:
        found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [found[i % len(found)] for i in range(count)]


def _contestants(model: str, images: list[Path], work: Path) -> dict[str, Callable[[], float]]:
    rows = [{"uri": str(path.absolute()), "image_id": f"{i:06}"} for i, path in enumerate(images)]
    pq.write_table(pa.Table.from_pylist(rows), work / "manifest.parquet")
    settings = config.parse(
        {
            "manifest": {"path": str(work / "manifest.parquet")},
            "model": {"name": model},
            "output": {"path": str(work / "output")},
        }
    )
    resolved = resolve(settings.model, Storage())
    decoded = [decode(path.read_bytes(), resolved.preprocessing, settings.decode).pixels for path in images[:64]]
    engine = engines.load(
        resolved,
        settings.model,
        settings.embedding,
        engine=engines.choose(settings.model, gpus=torch.cuda.is_available()),
        top_k=settings.labels.top_k,
        threads=os.cpu_count() or 1,
    )
    classify = transformers.pipeline("image-classification", model=str(resolved.folder))

    def bare_engine() -> float:
        return _rate(
            len(decoded), lambda: [engine.predict(np.stack(decoded[i : i + 16])) for i in range(0, 64, 16)]
        )

    def whole_job() -> float:
        shutil.rmtree(work / "output", ignore_errors=True)
        return run(settings).images_per_s

    def hf_pipeline() -> float:
        few = images[:48]
        return _rate(len(few), lambda: classify([Image.open(path).convert("RGB") for path in few], batch_size=8))

    bare_engine()  # the first call compiles and allocates
    return {"bare engine": bare_engine, "whole job": whole_job, "HF pipeline()": hf_pipeline}


def _rate(images: int, work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return images / (time.perf_counter() - started)


def _report(rates: dict[str, list[float]], count: int, out: Path) -> None:
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"\n{'':20} {'median':>8} {'min':>8} {'max':>8}   whole job ÷ it")
    for name, values in rates.items():
        ratio = medians["whole job"] / medians[name]
        print(f"{name:20} {medians[name]:8.2f} {min(values):8.2f} {max(values):8.2f}   {ratio:8.2f}")
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    out.write_text(json.dumps({"images": count, "images_per_s": rates, "machine": machine}, indent=2) + "\n")


if __name__ == "__main__":
    main()
