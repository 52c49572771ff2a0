"""`make bench`: LakeLens against its own engine and against what people use today, side by side.

All contestants take turns in one go, several times over, on the same images and weights. Machines are noisy: read
the ratios. Without options it draws its images and uses a ViT-B/16 with random weights.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from benchmarks import report, s3_images
from benchmarks.contestants import daft_feed, hf_pipeline, lakelens, pillow, ray_data
from benchmarks.inputs import image_files, settings_for, vit_b16
from pipeline.models.model import resolve
from pipeline.storage.filesystems import Storage

Contestants = dict[str, Callable[[], dict[str, float]]]
"""What each contestant measures, in images/s by name. The result is empty if it cannot be measured here."""


def main() -> None:
    options = _options()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lakelens-bench-")))
        model = options.model or vit_b16(work / "model")
        images = image_files(options.images, work, max(options.count, options.feed_count))
        uris = [*map(str, images)]
        if options.s3:
            uris = stack.enter_context(s3_images.served(images, work / "s3"))
        contestants = _contestants(model, images, uris, options, work)
        rates: report.Rates = {}
        for _ in range(options.repeats):
            for contestant in contestants.values():
                for name, rate in contestant().items():
                    rates.setdefault(name, []).append(rate)
                    print(f"{name:32} {rate:9.2f} images/s", flush=True)
    report.print_table(rates)
    counts = {"job": options.count, "feed": options.feed_count}
    report.save(rates, {"images": counts, "precision": options.precision}, options.out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of images; default: drawn ones")
    parser.add_argument("--s3", action="store_true", help="read them from an S3 server on this machine")
    parser.add_argument("--model", help="a Hugging Face folder or hub id; default: a ViT-B/16 with random weights")
    parser.add_argument("--count", type=int, default=256, help="images of a whole job")
    parser.add_argument("--feed-count", type=int, default=4096, help="images of a contestant that only feeds")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each contestant")
    parser.add_argument("--precision", default="auto", help="of LakeLens: auto, fp32, bf16, fp16 or int8")
    parser.add_argument(
        "--only", default="", help="contestants whose names contain this, or one of several texts with | between"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="without its .json and .png")
    return parser.parse_args()


def _contestants(
    model: str, images: list[Path], uris: list[str], options: argparse.Namespace, work: Path
) -> Contestants:
    """Return the contestants that the options choose, by name."""
    job_images, feed_images = images[: options.count], images[: options.feed_count]
    job = settings_for(uris[: options.count], model, options.precision, work)
    feed = settings_for(uris[: options.feed_count], model, options.precision, work)
    resolved = resolve(job.model, Storage())
    folder, size, threads = str(resolved.folder), resolved.preprocessing.height, os.cpu_count() or 1
    job_manifest, feed_manifest = (Path(one.manifest.path[0]) for one in (job, feed))
    rates = {
        "engine: bare": _loaded_once(lambda: lakelens.bare_engine(job, job_images)),
        "job: HF pipeline()": _loaded_once(lambda: hf_pipeline.job(folder, job_images)),
        "job: Ray Data as documented": lambda: ray_data.rate(job_manifest, folder, threads),
        "feed: LakeLens": lambda: lakelens.feed(feed),
        "feed: bare Pillow processes": lambda: pillow.feed(feed_images, size, threads),
        "feed: Ray Data as documented": lambda: ray_data.rate(feed_manifest, folder, threads, feed_only=True),
    }
    contestants: Contestants = {name: _named(name, rate) for name, rate in rates.items()}
    contestants["job: LakeLens"] = lambda: lakelens.whole_job(job)
    contestants["feed: Daft"] = lambda: daft_feed.feed(uris[: options.feed_count], size)
    if options.s3:  # others read files, or nothing: Ray Data's download() gives nulls from this server
        contestants = {name: one for name, one in contestants.items() if "LakeLens" in name or "Daft" in name}
    wanted = options.only.split("|")
    return {name: contestants[name] for name in sorted(contestants) if any(part in name for part in wanted)}


def _named(name: str, rate: Callable[[], float]) -> Callable[[], dict[str, float]]:
    return lambda: {name: rate()}


def _loaded_once(load: Callable[[], Callable[[], float]]) -> Callable[[], float]:
    """Delay loading to the first measurement."""
    loaded = cache(load)
    return lambda: loaded()()


if __name__ == "__main__":
    main()
