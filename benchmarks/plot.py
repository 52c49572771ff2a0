"""The rates of all contestants as bars, with their spread."""

import statistics
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt


def save(rates: dict[str, list[float]], out: Path) -> None:
    """One panel for whole jobs, one for feeds; bars are medians, whiskers the least and the most."""
    panels = [("images/s, whole job", ("engine", "job")), ("images/s, feed alone", ("feed",))]
    figure, axes = plt.subplots(len(panels), figsize=(8, 6), constrained_layout=True)
    for axis, (title, kinds) in zip(axes, panels, strict=True):
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
