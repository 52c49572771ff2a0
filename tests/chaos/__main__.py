"""Rounds of chaos, each decided by its seed: `python -m tests.chaos --store local|s3 --rounds N --seed S`.

Drivers, workers, nodes and the S3 server are killed, and the store fails in every way that it can; then the output
must be what an undisturbed run leaves, row for row and file for file. Prints a line a round, and totals.
"""

import argparse
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.chaos.arena import arena
from tests.chaos.plan import scenario
from tests.chaos.round import Report


def line(store: str, report: Report) -> str:
    """What a round did, on one line."""
    return (
        f"{store} seed {report.scenario.seed}: {report.scenario.name}; kills {_counted(report.tally.kills)}; "
        f"faults {_counted(report.faults)}; drivers ended {_counted(report.tally.exits)}; "
        f"{report.seconds:.1f} s; {'FAILED' if report.problems else 'exact'}"
    )


def totals(reports: Sequence[Report]) -> str:
    """All rounds together."""
    kills, faults, exits = Counter[str](), Counter[str](), Counter[str]()
    for report in reports:
        kills, faults, exits = kills + report.tally.kills, faults + report.faults, exits + report.tally.exits
    failed = [report.scenario.seed for report in reports if report.problems]
    seconds = sum(report.seconds for report in reports)
    return (
        f"{len(reports)} rounds in {seconds:.0f} s; kills {_counted(kills)}; faults {_counted(faults)}; "
        f"drivers ended {_counted(exits)}; {len(failed)} failed {failed or ''}"
    )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def main() -> int:
    """The exit code: 1 if a round failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--store", choices=("local", "s3"), required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the first round; the next ones have the next")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lakelens-chaos-"))
    reports: list[Report] = []
    with arena(folder) as place:
        for seed in range(asked.seed, asked.seed + asked.rounds):
            try:
                report = place.play(asked.store, seed)
            except Exception:
                report = Report(scenario(asked.store, seed))
                report.problems.append(f"the round itself broke: {traceback.format_exc()}")
            reports.append(report)
            print(line(asked.store, report), flush=True)
            for sentence in report.tally.sentences:
                print(f"    said {sentence}", flush=True)
            for problem in report.problems:
                print(f"    {problem}", flush=True)
            if report.problems:
                print(f"    again: --store {asked.store} --rounds 1 --seed {seed}; kept in {folder}", flush=True)
    print(totals(reports), flush=True)
    failed = any(report.problems for report in reports)
    if not failed:
        shutil.rmtree(folder, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
