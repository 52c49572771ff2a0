"""Which manifest rows a run is for. It does not know how they are found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Selection:
    """The manifest rows that a run processes.

    By default these are the rows that the output lacks or holds with another version; with `failed`, the rows that
    it holds as failed. Empty `codes` and `datasets` select all of them. `where` is an SQL condition on manifest
    columns. At most `limit` rows are processed.
    """

    failed: bool = False
    codes: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    where: str | None = None
    limit: int | None = None


NEW_AND_CHANGED = Selection()
"""What an ordinary run processes: rows that the output lacks, or holds with another version."""
