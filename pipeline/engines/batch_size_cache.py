"""Batch sizes that were found, kept on a node for the next predictor of the same model on the same kind of device.

It does not know how a size is found. Losing one costs some twenty batches.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from pipeline.engines.batching import Learned
from pipeline.storage.caches import cache_folder

KEPT_S = 7 * 24 * 3600.0
"""For so long: what fits depends on the driver, and on who else uses the device."""


class Shelf:
    """The place of one model, device and precision, below `caches.cache_folder()`."""

    def __init__(self, *decisive: str) -> None:
        key = hashlib.sha256("\n".join(decisive).encode()).hexdigest()[:16]
        self._file = cache_folder() / "batch-sizes" / f"{key}.json"
        self._held: Learned | None = None

    def take(self) -> Learned | None:
        """What was found before; None if nothing was, or too long ago."""
        try:
            if time.time() - self._file.stat().st_mtime < KEPT_S:
                self._held = Learned(**json.loads(self._file.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return self._held

    def put(self, learned: Learned | None) -> None:
        """Keep it, if it is news. A cache that cannot be written is done without."""
        if learned is None or learned == self._held:
            return
        self._held = learned
        scratch: Path = self._file.with_suffix(f".{uuid4().hex}")
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(json.dumps(asdict(learned)))
            os.replace(scratch, self._file)
