"""The line that tells how far a run is."""

import pytest

from pipeline.face.progress_text import ProgressText
from pipeline.planning.account import Account, Counts, Progress


def at(predicted: int, elapsed_s: float, failed: int = 0) -> Progress:
    return Progress(1_200, predicted, Account({"d": Counts(failed=failed)}), elapsed_s)


def test_the_rate_begins_with_the_first_block_so_that_start_up_does_not_lower_it() -> None:
    text = ProgressText()
    assert text.describe(at(100, 60.0)) == "100 / 1,200 images  0 errors"
    assert text.describe(at(200, 61.0, failed=1)) == "200 / 1,200 images  100.0 images/s  ETA 00:00:10  1 error"
    assert text.rate(at(300, 64.0)) == pytest.approx(50)


def test_a_long_time_left_is_told_in_hours() -> None:
    text = ProgressText()
    text.describe(at(0, 0.0))
    assert "ETA 33:18:20" in text.describe(at(1, 100.0))
