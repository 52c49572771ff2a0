"""The account: every input row ends in exactly one count, per dataset.

    input = already_done + ok + failed + duplicates + invalid + not_selected + left

It is pure arithmetic, and does not know how rows are read or written.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pipeline.errors import AccountError


@dataclass(frozen=True)
class Counts:
    """Rows of one dataset, or of all of them."""

    input: int = 0
    already_done: int = 0
    ok: int = 0
    failed: int = 0
    duplicates: int = 0
    invalid: int = 0
    not_selected: int = 0
    left: int = 0

    @property
    def accounted(self) -> int:
        """Return the right side of the balance."""
        counts: dict[str, int] = asdict(self)
        return sum(counts.values()) - self.input

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


@dataclass(frozen=True)
class Account:
    """Counts by dataset name. It is immutable: a run makes a new one for each commit."""

    datasets: Mapping[str, Counts]

    @property
    def total(self) -> Counts:
        """Return the sum over all datasets."""
        return sum(self.datasets.values(), Counts())

    def after(self, committed: Iterable[tuple[str, int, int]]) -> "Account":
        """Return the account after a commit of (dataset, ok, failed) rows that were `left` before."""
        datasets = dict(self.datasets)
        for dataset, ok, failed in committed:
            counts = datasets.get(dataset, Counts())
            datasets[dataset] = replace(
                counts, ok=counts.ok + ok, failed=counts.failed + failed, left=counts.left - ok - failed
            )
        return Account(datasets)

    def failure_rate(self) -> float:
        """Return the share of failed rows among those processed; 0 before the first."""
        total = self.total
        return total.failed / (total.ok + total.failed) if total.failed else 0.0

    def check(self) -> None:
        """Raise AccountError if a dataset does not balance. The message names it and both sides."""
        for dataset, counts in self.datasets.items():
            negative = [field.name for field in fields(counts) if getattr(counts, field.name) < 0]
            if counts.input != counts.accounted or negative:
                raise AccountError(
                    f"The account of dataset {dataset!r} does not balance: {counts.input} rows came in, "
                    f"{counts.accounted} are accounted for ({asdict(counts)}); please report this defect."
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the total and the counts of every dataset, for JSON."""
        return {
            "total": asdict(self.total),
            "datasets": {name: asdict(counts) for name, counts in sorted(self.datasets.items())},
        }


@dataclass(frozen=True)
class Progress:
    """The state of a run: pending rows in all, rows predicted so far, and the account of committed rows."""

    pending: int
    predicted: int
    account: Account
    elapsed_s: float
