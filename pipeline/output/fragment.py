"""One Parquet output file: its name, and what is known of it once it is written."""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote
from uuid import uuid4

from pipeline import schema
from pipeline.stage_seconds import Seconds

FOLDER = "predictions"
"""Of an output: the table, below which they lie."""
_NAME = re.compile(r"^\.?(\d+)-[0-9a-f]{32}\.parquet(\.[0-9a-f]{32}\.tmp)?$")
"""A fragment, or the scratch file of one whose writer was killed."""


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


def fragment_path(dataset: str, outcome: str, epoch: int) -> str:
    """A path that no other attempt has, below the table, with the dataset's name percent-encoded."""
    folder = f"{schema.DATASET}={quote(dataset, safe='')}/{schema.OUTCOME}={outcome}"
    return f"{folder}/{epoch}-{uuid4().hex}.parquet"


def folders_of(path: str) -> tuple[str, str]:
    """The dataset and the outcome of a file below the table."""
    dataset, outcome = (unquote(folder.partition("=")[2]) for folder in path.split("/")[:2])
    return dataset, outcome


def is_of_failed(uri: str) -> bool:
    """Whether a fragment holds failed rows, by its folder."""
    return f"/{schema.OUTCOME}={schema.FAILED}/" in uri


def epoch_of(path: str) -> int | None:
    """The epoch in a fragment's name; None for files that no run wrote."""
    found = _NAME.match(path.rsplit("/", 1)[-1])
    return int(found[1]) if found else None
