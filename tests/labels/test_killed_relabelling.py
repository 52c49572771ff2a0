"""A relabelling that is killed at any moment, beside another one: the labels of before, or all new ones."""

import os
import random
import signal
import subprocess
import sys
import time

from deltalake import DeltaTable

from pipeline.labels import head as heads
from tests.labels.conftest import head
from tests.labels.test_relabelling import assert_complete, relabelled
from tests.support import orphans
from tests.support.histories import History
from tests.support.making import STORAGE

KILLS = 20 if "LAKELENS_EVERY_STEP" in os.environ else 1
RELABEL = """
import sys, time
from pipeline.labels.relabelling import relabel
from pipeline.storage.filesystems import Storage
print("ready", flush=True)
relabel(sys.argv[1], sys.argv[2], Storage())
print("done", flush=True)
"""


def started(history: History, folder: str) -> subprocess.Popen[str]:
    """A relabelling in a process of its own, which has imported everything."""
    process = subprocess.Popen(
        [sys.executable, "-c", RELABEL, str(history.path), folder],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=orphans.none_left,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def heads_in(history: History) -> set[str]:
    return {*DeltaTable(str(history.path / "labels" / "species")).to_pyarrow_table()["head"].to_pylist()}


def test_readers_see_labels_of_one_head_whenever_a_relabelling_is_killed(history: History, saved: str) -> None:
    relabelled(history, saved)
    rng, last = random.Random(7), head().sha256
    for round_ in range(1, KILLS + 1):
        heads.save(head(seed=round_), saved, STORAGE)
        history.run(ok=[f"n{round_}"])
        with started(history, saved) as killed, started(history, saved) as other:
            time.sleep(rng.uniform(0, 0.3))
            killed.send_signal(signal.SIGKILL)
            assert heads_in(history) in ({last}, {head(seed=round_).sha256})
            assert other.wait(60) == 0
        last = head(seed=round_).sha256
        assert_complete(history, head(seed=round_))
