"""What a run did: what `run` gives, and what `summary.json` says."""

import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import ray

from pipeline import __version__
from pipeline.account import Account
from pipeline.listed import Listing
from pipeline.timing import Seconds


@dataclass(frozen=True)
class Summary:
    """What a run did. `run_id` is None if there was nothing to do: then no row was written.

    `status` is finished, stopped, limited (rows beyond `--limit` are left) or incomplete; `device` what its
    predictors computed on: GPU, TPU or CPU; `worker_seconds` where the time of its workers went; `listing` what
    was listed where a folder is the manifest.
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
        """Whether it was asked to stop, and left rows for that."""
        return self.status == "stopped"

    @property
    def images_per_s(self) -> float:
        """Processed images a second, start-up included."""
        total = self.account.total
        return (total.ok + total.failed) / self.seconds if self.seconds else 0.0

    @property
    def advice(self) -> str | None:
        """Which stage was the bottleneck, and what would help, as a sentence; None if that is not known."""
        return self.worker_seconds.advice(self.device) if self.device else None

    @property
    def lines(self) -> list[str]:
        """How it went, for people."""
        where = f"output: {self.output}"
        if self.run_id is None:
            return [where]
        word = "stopped" if self.stopped else "finished"
        speed = f"{word} in {self.seconds:,.1f} s, {self.images_per_s:,.1f} images/s"
        return [f"{speed}, engine {self.engine}, run {self.run_id}", *filter(None, [self.advice]), where]

    def facts(self) -> dict[str, Any]:
        """For `summary.json` and the log."""
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
