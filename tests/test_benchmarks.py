"""The benchmarks that the docs name exist, and their arithmetic is right."""

import importlib
import re
from pathlib import Path

import pytest

from benchmarks import fixed_rate_device, steady_rate

ROOT = Path(__file__).parents[1]
PAGES = ("ARCHITECTURE.md", "README.md", "benchmarks/README.md", "benchmarks/RESULTS.md")
NAMED = {
    name for page in PAGES for name in re.findall(r"python -m (benchmarks\.\w+)", (ROOT / page).read_text("utf-8"))
}


@pytest.mark.parametrize("module", [*sorted(NAMED), "benchmarks.bench"])
def test_a_benchmark_that_the_docs_name_can_be_imported(module: str) -> None:
    if module == "benchmarks.bench":
        pytest.importorskip("matplotlib", reason="the chart of make bench needs the extra bench")
    assert callable(importlib.import_module(module).main)


def test_the_rate_is_that_of_the_second_half() -> None:
    assert steady_rate.of([(0.0, 10), (1.0, 10), (2.0, 4), (3.0, 4), (4.0, 4)]) == pytest.approx(4)


def test_a_device_is_busy_for_its_share_of_the_second_half(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("0 5\n5 6\n8 10\n")  # the second half is from 5 to 10, and idle from 6 to 8
    assert fixed_rate_device.busy_share(tmp_path / "log") == pytest.approx(0.6)
