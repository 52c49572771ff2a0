"""What planning a large lake costs: `python -m benchmarks.plan --millions 10 --done 0.9`.

It makes a manifest of made-up URIs with versions, in files of a million rows (`--format`), and a table that holds
a share of them in files of 32,768 rows. Then it plans once in a process of its own, with the default memory
limit.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import duckdb

from pipeline.config import ManifestConfig, PlanningConfig
from pipeline.output.fragment import Fragment
from pipeline.output.layout import PREDICTIONS, fragment_path
from pipeline.output.table import Predictions
from pipeline.planning.plan import open_plan
from pipeline.storage.filesystems import Storage

ROWS_PER_FILE = 32_768
MILLION = 1_000_000
URI = "'s3://lake/images/' || lpad((i % 4096)::VARCHAR, 4, '0') || '/' || md5(i::VARCHAR) || '.jpg'"


OPTIONS = {"parquet": "FORMAT parquet, COMPRESSION zstd", "csv": "FORMAT csv, HEADER", "jsonl": "FORMAT json"}


def make(folder: Path, millions: int, done: float, kind: str) -> None:
    """Write the manifest and the table, whose Parquet files have only the columns that planning reads."""
    connection = duckdb.connect()
    (folder / "manifest").mkdir(parents=True)
    for number in range(millions):
        connection.execute(
            f"COPY (SELECT {URI} AS uri, 'set-' || (i * 20 // {millions * MILLION}) AS dataset, "
            "md5((i + 7)::VARCHAR) AS version "
            f"FROM range({number * MILLION}, {(number + 1) * MILLION}) AS rows(i)) "
            f"TO '{folder}/manifest/{number:04}.{kind}' ({OPTIONS[kind]})"
        )
    table = Predictions.create(str(folder / "out"), Storage(), [])
    epoch = table.claim("made", [])
    assert epoch is not None
    fragments = []
    for first in range(0, int(done * millions * MILLION), ROWS_PER_FILE):
        rows = min(ROWS_PER_FILE, int(done * millions * MILLION) - first)
        path = fragment_path("all", "ok", epoch)
        file = folder / "out" / PREDICTIONS / path
        file.parent.mkdir(parents=True, exist_ok=True)
        connection.execute(
            f"COPY (SELECT {URI} AS image_id, md5((i + 7)::VARCHAR) AS version, 1::INTEGER AS attempts, "
            f"NULL::VARCHAR AS error_code FROM range({first}, {first + rows}) AS rows(i)) "
            f"TO '{file}' (FORMAT parquet, COMPRESSION zstd)"
        )
        fragments.append(Fragment(path, "all", "ok", rows, file.stat().st_size))
    table.commit(fragments, "made", epoch)


def measure(folder: Path, memory_gb: float, kind: str) -> None:
    """Plan once, write the pending rows, and print what it cost."""
    started = time.monotonic()
    table = Predictions.open(str(folder / "out"), Storage())
    config = ManifestConfig(path=(str(folder / "manifest" / f"*.{kind}"),))
    with open_plan(config, Storage(), table, limits=PlanningConfig(memory_gb=memory_gb)) as found:
        counted_s = time.monotonic() - started
        files = found.write_pending(str(folder / "pending"), Storage())
    used = resource.getrusage(resource.RUSAGE_SELF)
    result = {
        "rows": found.account.total.input,
        "already_done": found.account.total.already_done,
        "pending": found.pending,
        "files": len(files),
        "counted_s": round(counted_s, 1),
        "seconds": round(time.monotonic() - started, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_gb": round(used.ru_maxrss * 1024 / 1e9, 2),
    }
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, default=10)
    parser.add_argument("--done", type=float, default=0.9)
    parser.add_argument("--format", choices=[*OPTIONS], default="parquet")
    parser.add_argument("--memory-gb", type=float, default=PlanningConfig().memory_gb)
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/plan-data"), help="made if missing")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    kind = options.format
    folder = options.folder / f"{options.millions}m-{options.done:g}-{kind}"
    if options.measure:
        return measure(folder, options.memory_gb, kind)
    if not folder.exists():
        make(folder, options.millions, options.done, kind)
    for _ in range(options.repeats):
        shutil.rmtree(folder / "pending", ignore_errors=True)
        arguments = ["--measure", "--millions", str(options.millions), "--done", str(options.done)]
        arguments += ["--memory-gb", str(options.memory_gb), "--folder", str(options.folder), "--format", kind]
        subprocess.run([sys.executable, "-m", "benchmarks.plan", *arguments], check=True)  # noqa: S603


if __name__ == "__main__":
    main()
