"""What a run did: the result of `run`, and the content of `runs/<run_id>/summary.json`."""

import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import ray
from pydantic import Field

from pipeline import __version__
from pipeline.output.documents import Document, parsed
from pipeline.output.layout import RunFolder
from pipeline.planning.account import Account, Counts
from pipeline.planning.listing_report import Listing
from pipeline.stage_seconds import Seconds
from pipeline.storage.filesystems import Storage


class AccountRecord(Document):
    """The account: the counts of all rows, and of each dataset."""

    total: Counts
    datasets: dict[str, Counts]


class SummaryRecord(Document):
    """The content of `summary.json`. `Summary` explains the keys that are not listed here.

    `epoch`: the epoch of the run's commits. `model`, `fingerprint`: its embedding space. `finished_at`: ISO 8601,
    in UTC. `seconds`: the duration of the run. `images_per_s`: processed images divided by `seconds`.
    `worker_seconds`: the time of all workers, added up. `left_out`, `superseded`, `unlisted`: see `Listing`.
    `versions`: of LakeLens, Ray and Python.
    """

    epoch: int
    model: str
    fingerprint: str
    run_id: str
    status: str
    engine: str
    device: str
    finished_at: str
    seconds: float
    images_per_s: float
    worker_seconds: Seconds
    bottleneck: str | None
    account: AccountRecord
    left_out: dict[str, int] = Field(default_factory=dict)
    superseded: int = 0
    unlisted: list[str] = Field(default_factory=list)
    versions: dict[str, str]

    def write(self, folder: str, storage: Storage) -> None:
        """Write it into a run's folder. Raises: StorageError."""
        storage.write_json(RunFolder(folder).summary, self.model_dump())


def read(folder: str, storage: Storage) -> SummaryRecord | None:
    """Read the summary in a run's folder. Return None if the run has not finished.

    Raises: StorageError, also for a damaged file.
    """
    uri = RunFolder(folder).summary
    data = storage.read(uri)
    return None if data is None else parsed(SummaryRecord, data, uri)


@dataclass(frozen=True)
class Summary:
    """What a run did. `run_id` is None if no row was pending; then no row was written.

    `status` is finished, stopped, limited (rows beyond `--limit` are left) or incomplete. `device` is the device
    of the predictors: GPU, TPU or CPU. `worker_seconds` is the time that the workers spent in each stage.
    `listing` describes what was listed if the manifest is a folder.
    """

    output: str
    account: Account
    run_id: str | None = None
    status: str = "finished"
    seconds: float = 0.0
    engine: str | None = None
    device: str | None = None
    worker_seconds: Seconds = Seconds()
    listing: Listing = Listing()

    @property
    def stopped(self) -> bool:
        """Whether the run was asked to stop before it had processed all rows."""
        return self.status == "stopped"

    @property
    def images_per_s(self) -> float:
        """Processed images per second, start-up included."""
        total = self.account.total
        return (total.ok + total.failed) / self.seconds if self.seconds else 0.0

    @property
    def advice(self) -> str | None:
        """The bottleneck and what would remove it, as one sentence; None if no bottleneck is known."""
        return self.worker_seconds.advice(self.device) if self.device else None

    @property
    def lines(self) -> list[str]:
        """The result of the run, as lines of text."""
        where = f"output: {self.output}"
        if self.run_id is None:
            return [where]
        word = "stopped" if self.stopped else "finished"
        speed = f"{word} in {self.seconds:,.1f} s, {self.images_per_s:,.1f} images/s"
        return [f"{speed}, engine {self.engine}, run {self.run_id}", *filter(None, [self.advice]), where]

    def facts(self) -> dict[str, Any]:
        """Return the summary as a dictionary, for the log."""
        times = {name: round(value, 3) for name, value in asdict(self.worker_seconds).items()}
        return {
            "run_id": self.run_id,
            "status": self.status,
            "engine": self.engine,
            "device": self.device,
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
            "images_per_s": round(self.images_per_s, 3),
            "worker_seconds": times,
            "bottleneck": self.worker_seconds.bottleneck,
            "account": self.account.to_dict(),
            **self.listing.to_dict(),
            "versions": {
                "lakelens": __version__,
                "ray": ray.__version__,
                "python": platform.python_version(),
            },
        }

    def record(self, epoch: int, description: dict[str, Any]) -> SummaryRecord:
        """Return the document for `summary.json`. `description` is the description of the space."""
        space = {key: description[key] for key in ("model", "fingerprint")}
        return SummaryRecord.model_validate({"epoch": epoch, **space, **self.facts()})
