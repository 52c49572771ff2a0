"""`make bench`: LakeLens against its own engine and against what people use today, side by side.

All contestants take turns in one go, several times over, on the same images and weights. Machines are noisy: read
the ratios. Without options it draws its images and takes a ViT-B/16 with random weights.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
import transformers
from PIL import Image

from benchmarks import documented, feed, plot, steady, store
from pipeline import config
from pipeline.config import RunConfig
from pipeline.demo.lake import make_lake
from pipeline.engines import choice, loading
from pipeline.engines.batch_sizer import BatchSizer
from pipeline.engines.batching import MicroBatches
from pipeline.images.decode import decode
from pipeline.images.options import DecodeOptions
from pipeline.models.model import resolve
from pipeline.planning.account import Progress
from pipeline.run import run
from pipeline.storage.filesystems import Storage

RESIDENT = 64
"""Images that the bare engine has in memory."""
Contestants = dict[str, Callable[[], dict[str, float]]]
"""What each measures, in images/s; what cannot be measured here is left out."""


def main() -> None:
    options = _options()
    with ExitStack() as places:
        work = Path(places.enter_context(tempfile.TemporaryDirectory(prefix="lakelens-bench-")))
        model = options.model or vit_b16(work / "model")
        images = images_in(options.images, work, max(options.count, options.feed_count))
        uris = places.enter_context(store.on_s3(images, work / "s3")) if options.s3 else [*map(str, images)]
        contestants = _contestants(model, images, uris, options, work)
        rates: dict[str, list[float]] = {}
        for _ in range(options.repeats):
            for contestant in contestants.values():
                for name, rate in contestant().items():
                    rates.setdefault(name, []).append(rate)
                    print(f"{name:32} {rate:9.2f} images/s", flush=True)
        _report(rates, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of images; drawn if not given")
    parser.add_argument("--s3", action="store_true", help="read them from an S3 server on this machine")
    parser.add_argument("--model", help="a Hugging Face folder or hub id; else a ViT-B/16 with random weights")
    parser.add_argument("--count", type=int, default=256, help="images of a whole job")
    parser.add_argument("--feed-count", type=int, default=4096, help="images where only the feed is measured")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each contestant")
    parser.add_argument("--precision", default="auto", help="of LakeLens: auto, fp32, bf16, fp16 or int8")
    parser.add_argument(
        "--only", default="", help="contestants whose names contain this, or one of these, with | between"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="without its .json and .png")
    return parser.parse_args()


def vit_b16(folder: Path, **settings: int) -> str:
    """A ViT-B/16 with random weights, but for what `settings` of its `ViTConfig` say."""
    torch.manual_seed(0)
    network = transformers.ViTConfig(**{"num_labels": 1000, **settings})
    transformers.ViTForImageClassification(network).save_pretrained(folder)
    transformers.ViTImageProcessorPil().save_pretrained(folder)
    return str(folder)


def images_in(folder: Path | None, work: Path, count: int) -> list[Path]:
    """`count` readable images, repeated if there are fewer."""
    if folder is None:
        manifest = pq.read_table(make_lake(work / "lake", images=min(count, 250))).to_pylist()
        found = [Path(row["uri"]) for row in manifest if row["truth"] is not None]
    else:
        found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [found[i % len(found)].absolute() for i in range(count)]


def _contestants(
    model: str, images: list[Path], uris: list[str], options: argparse.Namespace, work: Path
) -> Contestants:
    whole, fed = images[: options.count], images[: options.feed_count]
    lakes = (uris[: options.count], uris[: options.feed_count])
    settings, feeding = (settings_for(rows, model, options.precision, work) for rows in lakes)
    resolved = resolve(settings.model, Storage())
    folder, size, threads = str(resolved.folder), resolved.preprocessing.height, os.cpu_count() or 1
    manifests = [Path(one.manifest.path[0]) for one in (settings, feeding)]
    one = {
        "engine: bare": _once(lambda: _bare_engine(settings, whole)),
        "job: HF pipeline()": _once(lambda: _hf_pipeline(folder, whole)),
        "job: Ray Data as documented": lambda: _on_ray(documented.rate, manifests[0], folder, threads),
        "feed: LakeLens": lambda: feed.lakelens(emptied(feeding)),
        "feed: bare Pillow processes": lambda: feed.pillow(fed, size, threads),
        "feed: Ray Data as documented": lambda: _on_ray(
            documented.rate, manifests[1], folder, threads, feed_only=True
        ),
    }
    contestants: Contestants = {name: _named(name, rate) for name, rate in one.items()}
    contestants["job: LakeLens"] = lambda: _whole_job(settings)
    contestants["feed: Daft"] = lambda: feed.daft(lakes[1], size)
    if options.s3:  # others read files, or nothing: Ray Data's download() gives nulls from this server
        contestants = {name: one for name, one in contestants.items() if "LakeLens" in name or "Daft" in name}
    wanted = options.only.split("|")
    return {name: contestants[name] for name in sorted(contestants) if any(part in name for part in wanted)}


def _named(name: str, rate: Callable[[], float]) -> Callable[[], dict[str, float]]:
    return lambda: {name: rate()}


def _once(load: Callable[[], Callable[[], float]]) -> Callable[[], float]:
    """A contestant that is loaded when it is first asked."""
    loaded = cache(load)
    return lambda: loaded()()


def settings_for(uris: Sequence[str | Path], model: str, precision: str, work: Path) -> RunConfig:
    rows = [{"uri": str(uri), "image_id": f"{i:06}"} for i, uri in enumerate(uris)]
    manifest = work / f"manifest-{len(rows)}.parquet"
    pq.write_table(pa.Table.from_pylist(rows), manifest)
    return config.parse(
        {
            "manifest": {"path": str(manifest)},
            "model": {"name": model, "precision": precision},
            "output": {"path": str(work / f"output-{len(rows)}")},
        }
    )


def emptied(settings: RunConfig) -> RunConfig:
    shutil.rmtree(settings.output.path, ignore_errors=True)
    return settings


def _bare_engine(settings: RunConfig, images: list[Path]) -> Callable[[], float]:
    """The engine alone, in the micro-batches that it likes best, on pixels that are in memory."""
    model = resolve(settings.model, Storage())
    options = DecodeOptions.from_config(settings.decode)
    pixels = np.stack(
        [decode(path.read_bytes(), model.preprocessing, options).pixels for path in images[:RESIDENT]]
    )
    engine = loading.load_engine(
        model,
        settings.model,
        settings.embedding,
        engine=choice.choose(settings.model, gpus=torch.cuda.is_available()),
        top_k=settings.labels.top_k,
        threads=os.cpu_count() or 1,
    )
    sizer = BatchSizer(32)

    def once() -> float:
        started = time.perf_counter()
        starts = MicroBatches(
            len(pixels), sizer, lambda first, end: engine.start(pixels[first:end]), engine.in_flight
        )
        list(starts)
        return len(pixels) / (time.perf_counter() - started)

    while sizer.settled is None:
        once()
    return once


def _whole_job(settings: RunConfig) -> dict[str, float]:
    """Of a run's second half, and of all of it."""
    seen: list[tuple[float, int]] = []

    def note(progress: Progress) -> None:
        if new := progress.predicted - sum(images for _, images in seen):
            seen.append((progress.elapsed_s, new))

    summary = run(emptied(settings), on_progress=note)
    return {
        "job: LakeLens": steady.rate(seen),
        "job: LakeLens, start-up included": summary.images_per_s,
    }


def _hf_pipeline(model: str, images: list[Path]) -> Callable[[], float]:
    classify = transformers.pipeline("image-classification", model=model)
    few = images[:48]

    def once() -> float:
        started = time.perf_counter()
        classify([Image.open(path).convert("RGB") for path in few], batch_size=8)
        return len(few) / (time.perf_counter() - started)

    return once


def _on_ray(contestant: Callable[..., float], manifest: Path, model: str, threads: int, **options: bool) -> float:
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        return contestant(manifest, model, threads, **options)
    finally:
        ray.shutdown()


def _report(rates: dict[str, list[float]], options: argparse.Namespace) -> None:
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ours = {"job": medians.get("job: LakeLens"), "feed": medians.get("feed: LakeLens")}
    print(f"\n{'':32} {'median':>9} {'min':>9} {'max':>9}   LakeLens ÷ it")
    for name, values in rates.items():
        base = ours["feed" if name.startswith("feed") else "job"]
        ratio = f"{base / medians[name]:8.2f}" if base else ""
        print(f"{name:32} {medians[name]:9.2f} {min(values):9.2f} {max(values):9.2f}   {ratio}")
    document = {
        "images": {"job": options.count, "feed": options.feed_count},
        "precision": options.precision,
        "machine": {"processor": _processor(), "cores": os.cpu_count()},
        "images_per_s": rates,
    }
    options.out.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")
    plot.save(rates, options.out.with_suffix(".png"))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
