"""One Parquet output file: what is known of it once it is written."""

from dataclasses import dataclass

from pipeline.stage_seconds import Seconds


@dataclass(frozen=True)
class Fragment:
    """A file that is written but not visible. `path` is relative to the table.

    `examples` are a few of its failed rows, as "uri: code"; `refused` counts those that speak of the store and not
    of the image. `replaces` names the files that held older rows of some of its ids when it was planned, as paths
    below the table. `seconds` are those that its rows took; of fragments that were written together one has them
    all.
    """

    path: str
    dataset: str
    outcome: str
    rows: int
    size: int
    examples: tuple[str, ...] = ()
    refused: int = 0
    replaces: tuple[str, ...] = ()
    seconds: Seconds = Seconds()


@dataclass(frozen=True)
class Rest:
    """A visible file without the rows that are replaced: how many those are, and the others as a fragment, if
    any."""

    removed: int
    fragment: Fragment | None
