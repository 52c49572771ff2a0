"""Batch sizes that a node remembers for the next predictor of the same model on the same kind of device.

This module does not know how a size is found. Losing one costs some twenty micro-batches.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from pipeline.engines.batch_sizer import SettledSize
from pipeline.storage.caches import cache_folder

MAX_AGE_S = 7 * 24 * 3600.0
"""Older sizes are ignored: what fits depends on the driver, and on who else uses the device."""


class BatchSizeCache:
    """The file for one `key`, such as model, device and precision, below `caches.cache_folder()`."""

    def __init__(self, *key: str) -> None:
        digest = hashlib.sha256("\n".join(key).encode()).hexdigest()[:16]
        self._file = cache_folder() / "batch-sizes" / f"{digest}.json"
        self._stored: SettledSize | None = None

    def load(self) -> SettledSize | None:
        """Return the stored size; None if there is none, or if it is too old or damaged."""
        try:
            if time.time() - self._file.stat().st_mtime < MAX_AGE_S:
                self._stored = SettledSize(**json.loads(self._file.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return self._stored

    def store(self, settled: SettledSize | None) -> None:
        """Store a size that has changed. A cache that cannot be written is ignored."""
        if settled is None or settled == self._stored:
            return
        self._stored = settled
        scratch: Path = self._file.with_suffix(f".{uuid4().hex}")
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(json.dumps(asdict(settled)))
            os.replace(scratch, self._file)
