"""The report of `benchmarks.bench`: a table, a JSON file, and a chart."""

import json
import os
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

Rates = dict[str, list[float]]
"""Images/s of each contestant, one for each repeat. A name begins with its kind: engine, job or feed."""
PANELS = {"images/s, whole job": ("engine", "job"), "images/s, feed alone": ("feed",)}
"""Title of each panel of the chart, and the kinds of contestants that it shows."""


def print_table(rates: Rates) -> None:
    """Print the median, the range, and the ratio of LakeLens's median to it."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ours = {"job": medians.get("job: LakeLens"), "feed": medians.get("feed: LakeLens")}
    print(f"\n{'':32} {'median':>9} {'min':>9} {'max':>9}   LakeLens ÷ it")
    for name, values in rates.items():
        base = ours["feed" if name.startswith("feed") else "job"]
        ratio = f"{base / medians[name]:8.2f}" if base else ""
        print(f"{name:32} {medians[name]:9.2f} {min(values):9.2f} {max(values):9.2f}   {ratio}")


def save(rates: Rates, facts: dict[str, Any], out: Path) -> None:
    """Write `out`.json, with the `facts` of this benchmark and the machine, and the chart `out`.png."""
    machine = {"processor": _processor(), "cores": os.cpu_count()}
    document = {**facts, "machine": machine, "images_per_s": rates}
    out.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")
    _save_chart(rates, out.with_suffix(".png"))


def _save_chart(rates: Rates, out: Path) -> None:
    """Draw the medians as bars, with whiskers from the least to the most."""
    figure, axes = plt.subplots(len(PANELS), figsize=(8, 6), constrained_layout=True)
    for axis, (title, kinds) in zip(axes, PANELS.items(), strict=True):
        chosen = {name: values for name, values in rates.items() if name.split(":")[0] in kinds}
        medians = [statistics.median(values) for values in chosen.values()]
        spread = [
            [median - min(values) for median, values in zip(medians, chosen.values(), strict=True)],
            [max(values) - median for median, values in zip(medians, chosen.values(), strict=True)],
        ]
        axis.barh(list(chosen), medians, xerr=spread if chosen else None, color="#4878a8")
        axis.invert_yaxis()
        axis.set_title(title, loc="left")
    figure.savefig(out, dpi=120)
    plt.close(figure)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
