"""The decoding child loads decoders and nothing heavy: every actor starts one, and again after some crashes."""

import subprocess
import sys

import pytest

HEAVY = {"duckdb", "fsspec", "pyarrow", "pydantic", "ray", "torch", "yaml"}


def loaded_by(module: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after it imports one."""
    code = f"import {module}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    )


@pytest.mark.parametrize("module", ["pipeline.images.sandbox_child", "pipeline.images.decode"])
def test_decoding_loads_no_heavy_package(module: str) -> None:
    loaded = loaded_by(module)
    assert "PIL" in loaded
    assert not loaded & HEAVY


def test_what_the_caller_sends_loads_no_heavy_package() -> None:
    assert not loaded_by("pipeline.images.sandbox_protocol") & HEAVY
