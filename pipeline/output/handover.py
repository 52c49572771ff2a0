"""Facts for the next run, in `runs/<run_id>/handover.json`. It does not know who owns the output."""

from contextlib import suppress

from pipeline.errors import LakeLensError
from pipeline.output import heartbeat
from pipeline.output.documents import Document, parsed
from pipeline.output.layout import RunFolder
from pipeline.storage.filesystems import Storage

CHANGE = 0.1
"""A smaller relative change of the rate is not written: it hardly changes the size of blocks, a power of two."""


class Handover(Document):
    """What a run uses from the previous run.

    `images_per_s` is the rate of one predictor with `engine`. `cleared_up` means that the run has deleted all its
    uncommitted files.
    """

    engine: str | None = None
    images_per_s: float | None = None
    cleared_up: bool = False

    def rate_of(self, engine: str) -> float | None:
        """Return the images/s of one predictor with this engine; None if the run used another one."""
        return self.images_per_s if self.engine == engine else None


def read(folder: str, storage: Storage) -> Handover:
    """Read the handover in a run's folder. Return an empty one if the run left none.

    LakeLens 0.1 kept the same facts in the heartbeat. Raises: StorageError, also for a damaged file.
    """
    files = RunFolder(folder)
    for uri in (files.handover, files.heartbeat):
        data = storage.read(uri)
        if data is not None:
            return parsed(Handover, data, uri, "delete it; the next run then measures the rate again")
    return Handover()


def is_uncleared(folder: str, storage: Storage) -> bool:
    """Tell whether the run with this folder may have left files to delete: it started, and did not clear up.

    Raises: StorageError.
    """
    return heartbeat.read(folder, storage).status is not None and not read(folder, storage).cleared_up


class HandoverFile:
    """The handover of this run, written again whenever it changes."""

    def __init__(self, folder: str, storage: Storage, previous: Handover) -> None:
        """Keep the rate of the previous run until this one has measured its own."""
        self._uri, self._storage = RunFolder(folder).handover, storage
        self._facts = Handover(engine=previous.engine, images_per_s=previous.images_per_s)
        if self._facts.images_per_s is not None:
            self._write()

    def note_rate(self, engine: str, images_per_s: float) -> None:
        """Keep the rate of one predictor, in images/s, unless it is close to the rate that is kept."""
        held = self._facts.rate_of(engine)
        if held is None or abs(images_per_s - held) > CHANGE * held:
            self._facts = self._facts.model_copy(update={"engine": engine, "images_per_s": round(images_per_s, 3)})
            self._write()

    def note_cleared_up(self) -> None:
        """Tell the next run that it has no files of this run to delete."""
        self._facts = self._facts.model_copy(update={"cleared_up": True})
        self._write()

    def _write(self) -> None:
        """Write the file. A store that fails costs the next run a few seconds, so it does not end this one."""
        with suppress(LakeLensError):
            self._storage.write_json(self._uri, self._facts.model_dump())
