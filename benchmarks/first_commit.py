"""The time until a run commits its first rows: `python -m benchmarks.first_commit`.

Two kinds of processes take turns. One is a Ray Data job of one actor that does nothing. The other is a run of 64
new images in a lake that an earlier run has begun: the model is converted and cached, and its rate is known. Both
are timed from the start of Python, the job to its end, the run to its first commit.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.inputs import image_files, settings_for, vit_b16

GROWTH = 64
"""Images that are new to each run."""


def _seconds(*arguments: str) -> float:
    started = time.time()
    command = [sys.executable, "-m", "benchmarks.first_commit_process", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - a module beside this one
    return float(done.stdout.splitlines()[-1]) - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a Hugging Face folder or hub id; default: a ViT-B/16 with random weights")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="lakelens-first-commit-"))
    try:
        model = options.model or vit_b16(work / "model")
        images = image_files(None, work, GROWTH * (options.repeats + 1))
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
