"""How soon a run has its first rows committed: `python -m benchmarks.start`.

Processes take turns: a Ray Data job of one actor that does nothing, and a whole run whose model an earlier one has
converted and cached. Each is timed from the start of Python: the one to its end, the other to its first commit.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ray

from benchmarks.bench import images_in, settings_for, vit_b16
from pipeline import config
from pipeline.account import Progress
from pipeline.run import run


class Nothing:
    """An actor that gives what it gets."""

    def __call__(self, batch: dict[str, object]) -> dict[str, object]:
        return batch


def empty() -> None:
    """The least that a Ray Data job with an actor can be."""
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.range(100).map_batches(Nothing, compute=ray.data.ActorPoolStrategy(size=1)).materialize()
    print(time.time())


def first_commit(output: str, manifest: str, model: str) -> None:
    """A whole run, which tells when it has committed rows."""
    told: list[float] = []

    def note(progress: Progress) -> None:
        if progress.account.total.ok and not told:
            told.append(time.time())

    raw = {"manifest": {"path": manifest}, "model": {"name": model}, "output": {"path": output}}
    run(config.parse(raw), on_progress=note)
    print(told[0])


def _seconds(*arguments: str) -> float:
    started = time.time()
    command = [sys.executable, "-m", "benchmarks.start", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this very module
    return float(done.stdout.splitlines()[-1]) - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a Hugging Face folder or hub id; else a ViT-B/16 with random weights")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("part", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        empty() if options.part == ["empty"] else first_commit(*options.part)
        return
    work = Path(tempfile.mkdtemp(prefix="lakelens-start-"))
    try:
        model = options.model or vit_b16(work / "model")
        settings = settings_for(images_in(None, work, 64), model, "auto", work)
        whole = (settings.output.path, settings.manifest.path[0], model)
        _seconds(*whole)  # now it is cached
        ratios = []
        for _ in range(options.repeats):
            shutil.rmtree(settings.output.path)
            base, ours = _seconds("empty"), _seconds(*whole)
            ratios.append(ours / base)
            print(f"empty job {base:5.1f} s, first commit {ours:5.1f} s, ratio {ratios[-1]:.2f}", flush=True)
        print(f"median ratio {statistics.median(ratios):.2f}")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
