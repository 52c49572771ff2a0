"""Every row of one version, as numbered files in the order in which the table's files hold them.

The files are the same whether this process writes them one after the other or tasks write them at once: the rows
of each table file are counted first, so it is known which rows a file of the export has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from urllib.parse import quote

import pyarrow as pa

from pipeline.errors import TableError
from pipeline.export.request import Request
from pipeline.export.row_files import RowFiles, digits_for, kind_of
from pipeline.export.shapes import read_columns, shape
from pipeline.export.summary import Written
from pipeline.output.layout import Layout
from pipeline.output.reader import PredictionsReader

FILES_OF_A_STRETCH = 4
"""Files of the export in one stretch. The table files at its ends are read for the neighbouring stretches, too, so
longer stretches read less twice."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive rows that become consecutive files in one folder of the export.

    The rows begin after the first `skip` rows of the table file `begin`, and end in the one before `end`. The
    first file of the export has the number `number`, which is written with `digits` digits.
    """

    folder: str
    number: int
    digits: int
    begin: int
    end: int
    skip: int
    rows: int


def stretches(
    reader: PredictionsReader, request: Request, counts: Sequence[int], files: int | None = FILES_OF_A_STRETCH
) -> list[Stretch]:
    """Cut the rows into stretches of this many files of the export; None makes one of each folder.

    `counts` are the rows of each table file that the export has.
    """
    found, digits = list[Stretch](), digits_for(_files_of_export(reader, request, counts))
    for folder, positions in _folders(reader, request):
        ends = list(accumulate(counts[position] for position in positions))
        step = request.rows_per_file * files if files else max(ends[-1], 1)
        for at in range(0, ends[-1], step):
            rows = min(step, ends[-1] - at)
            first = next(place for place, end in enumerate(ends) if end > at)
            last = next(place for place, end in enumerate(ends) if end >= at + rows)
            skip = at - (ends[first] - counts[positions[first]])
            place = (positions[first], positions[last] + 1, skip, rows)
            found.append(Stretch(folder, at // request.rows_per_file, digits, *place))
    return found


def write(
    stretch: Stretch, reader: PredictionsReader, request: Request, columns: Sequence[str], out: str
) -> Written:
    """Write the files of a stretch. Writing them again gives the same files. Raises: TableError, StorageError."""
    part = reader.part(stretch.begin, stretch.end)
    shaped = shape(request, columns)
    batches = part.batches(read_columns(request, columns), where=request.where)
    with RowFiles(
        kind_of(request.to, reader.storage),
        out,
        stretch.folder,
        rows_per_file=request.rows_per_file,
        digits=stretch.digits,
        first=stretch.number,
    ) as files:
        for batch in _cut(batches, stretch.skip, stretch.rows):
            files.write(shaped(batch))
    if files.written.rows != stretch.rows:
        raise TableError(
            f"Files of {Layout(reader.output).predictions} have {files.written.rows:,} rows, but "
            f"{stretch.rows:,} were counted before. The export is incomplete; export again."
        )
    return files.written


def _cut(batches: Iterator[pa.RecordBatch], skip: int, rows: int) -> Iterator[pa.RecordBatch]:
    """Leave out the first `skip` rows, and everything after the next `rows` rows."""
    for batch in batches:
        some = batch.slice(min(skip, batch.num_rows), rows)
        skip -= min(skip, batch.num_rows)
        rows -= some.num_rows
        if some.num_rows:
            yield some
        if not rows:
            return


def _folders(reader: PredictionsReader, request: Request) -> Iterator[tuple[str, list[int]]]:
    """Yield each folder of the export, with the positions of the table files whose rows go there."""
    if not request.by_dataset:
        if reader.files:
            yield "", list(range(len(reader.files)))
        return
    by_dataset = groupby(range(len(reader.files)), key=lambda position: reader.files[position].dataset)
    for dataset, positions in by_dataset:
        yield folder_of(dataset), list(positions)


def folder_of(dataset: str) -> str:
    """Return the folder of a dataset: its name, percent-encoded; dots, too, if it has nothing else."""
    return quote(dataset, safe="") if dataset.strip(".") else dataset.replace(".", "%2E")


def _files_of_export(reader: PredictionsReader, request: Request, counts: Sequence[int]) -> int:
    """Return how many files the folder with the most rows has."""
    rows = [sum(counts[position] for position in positions) for _, positions in _folders(reader, request)]
    return -(-max(rows, default=0) // request.rows_per_file)
