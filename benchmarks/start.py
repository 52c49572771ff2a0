"""How soon a run has its first rows committed: `python -m benchmarks.start`.

Processes take turns: a Ray Data job of one actor that does nothing, and a run of 64 images that are new in a lake
which an earlier run has begun: the model is converted and cached, and its rate known. Each is timed from the start
of Python: the one to its end, the other to its first commit.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bench import images_in, settings_for, vit_b16

GROWTH = 64
"""Images that are new to each run."""


def _seconds(*arguments: str) -> float:
    started = time.time()
    command = [sys.executable, "-m", "benchmarks.started", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - a module beside this one
    return float(done.stdout.splitlines()[-1]) - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a Hugging Face folder or hub id; else a ViT-B/16 with random weights")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="lakelens-start-"))
    try:
        model = options.model or vit_b16(work / "model")
        images = images_in(None, work, GROWTH * (options.repeats + 1))
        grown = range(GROWTH, len(images) + 1, GROWTH)
        manifests = [settings_for(images[:count], model, "auto", work).manifest.path[0] for count in grown]
        _seconds(str(work / "output"), manifests[0], model)
        ratios = []
        for manifest in manifests[1:]:
            base, ours = _seconds(), _seconds(str(work / "output"), manifest, model)
            ratios.append(ours / base)
            print(f"empty job {base:5.1f} s, first commit {ours:5.1f} s, ratio {ratios[-1]:.2f}", flush=True)
        print(f"median ratio {statistics.median(ratios):.2f}")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
