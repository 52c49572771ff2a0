"""The rows of an output as a Ray Data dataset, in tasks that read some files each."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby

import pyarrow as pa
import ray.data

from pipeline.output.reader import PredictionsReader

TASK_BYTES = 256 * 1024**2
"""Size of the files that one Ray task reads; a larger file is read by a task of its own."""


def dataset(reader: PredictionsReader, columns: Sequence[str] | None, where: str | None) -> ray.data.Dataset:
    """Return the rows of a reader that meet an SQL condition, with these columns, by default with all.

    Raises: TableError for an unknown column, ConfigError for a condition that is not SQL.
    """
    names = reader.schema(columns).names
    if where is not None:
        reader.require_condition(where)  # an error of a task would come late, and less clear
    spans = ray.data.from_items(_spans(reader), override_num_blocks=len(_spans(reader)))
    arguments = {"reader": reader, "columns": names, "where": where}
    return spans.map_batches(_read, batch_size=None, batch_format="pyarrow", fn_kwargs=arguments)


def _spans(reader: PredictionsReader) -> list[dict[str, int]]:
    """Cut the files of a reader into spans for tasks: at least one, which is empty if there is no file."""
    ends = accumulate(file.size for file in reader.files)
    numbers = [(end - 1) // TASK_BYTES for end in ends]
    groups = [list(group) for _, group in groupby(range(len(numbers)), key=numbers.__getitem__)]
    return [{"first": group[0], "end": group[-1] + 1} for group in groups] or [{"first": 0, "end": 0}]


def _read(spans: pa.Table, reader: PredictionsReader, columns: list[str], where: str | None) -> Iterator[pa.Table]:
    """Read the rows of spans of files, in a Ray task. An empty table tells the columns where there is no row."""
    for span in spans.to_pylist():
        part = reader.part(span["first"], span["end"])
        yield part.schema(columns).empty_table()
        for batch in part.batches(columns, where=where):
            yield pa.Table.from_batches([batch])
