"""One Parquet output file, and what the tasks that write files tell the driver."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import schema
from pipeline.output.file_statistics import FileStatistics
from pipeline.stage_seconds import Seconds


@dataclass(frozen=True)
class Fragment:
    """A file that is written but not visible yet: its path below the table, and its size in bytes.

    `statistics` are for the log; readers cannot skip a file without them.
    """

    path: str
    dataset: str
    outcome: str
    rows: int
    size: int
    statistics: FileStatistics = FileStatistics()


def row_counts(fragments: Sequence[Fragment]) -> dict[str, int]:
    """Count all rows and the failed rows, for the log."""
    failed = sum(fragment.rows for fragment in fragments if fragment.outcome == schema.FAILED)
    return {"rows": sum(fragment.rows for fragment in fragments), "failed": failed}


@dataclass(frozen=True)
class WriteResult:
    """A fragment that a write task has made of new rows, and what the driver has to know about these rows.

    `examples` are a few of its failed rows, as "uri: code". `refused` counts the failed rows whose code blames the
    store, not the image. `replaces` names the files, as paths below the table, that held older rows of some of its
    ids when the run was planned. `seconds` is the time that the rows took; of the results of one task, the first
    has the time of all rows.
    """

    fragment: Fragment
    examples: tuple[str, ...] = ()
    refused: int = 0
    replaces: tuple[str, ...] = ()
    seconds: Seconds = Seconds()


@dataclass(frozen=True)
class RemainingRows:
    """A visible file without the rows that newer files replace.

    `removed` counts these rows. `fragment` holds the other rows; None if there are none, or nothing is removed.
    """

    removed: int
    fragment: Fragment | None
