"""Compare the labels of the demo with what was drawn."""

import pyarrow.compute as pc

from pipeline import schema
from pipeline.output.reader import PredictionsReader
from pipeline.storage.filesystems import Storage


def accuracy(output: str) -> list[tuple[str, int, float]]:
    """Return (dataset, images, share of right labels) of the ok rows of an output; the last is the "total"."""
    rows = PredictionsReader.open(output, Storage()).only(outcome=schema.OK)
    labels = rows.to_arrow(["dataset", "label", "truth"])
    right = pc.equal(labels["label"], labels["truth"]).cast("int32")
    by_dataset = labels.append_column("right", right).group_by("dataset")
    groups = by_dataset.aggregate([([], "count_all"), ("right", "mean")]).sort_by("dataset").to_pylist()
    counted = [(group["dataset"], group["count_all"], group["right_mean"]) for group in groups]
    return [*counted, ("total", labels.num_rows, pc.mean(right).as_py())]
