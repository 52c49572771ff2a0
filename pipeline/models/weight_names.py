"""What a model's safetensors hold, by their headers: names of weights, and single numbers. It reads no matrix."""

from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from pipeline.errors import ModelError, first_line


def read_names(files: Sequence[Path], name: str) -> frozenset[str]:
    """Return the names of all weights in a model's files. Raises: ModelError for a damaged file."""
    found: set[str] = set()
    for path in files:
        try:
            with safe_open(path, framework="numpy") as weights:
                found.update(weights.keys())
        except (SafetensorError, OSError) as error:
            raise ModelError(f"The model {name} has a damaged {path.name}: {first_line(error)}.") from error
    return frozenset(found)


def read_number(files: Sequence[Path], weight: str) -> float | None:
    """Return a weight that is one number; None if there is none of this name."""
    for path in files:
        with safe_open(path, framework="numpy") as weights:
            if weight in weights.keys():  # noqa: SIM118  (it is no mapping)
                return float(weights.get_tensor(weight).reshape(-1)[0])
    return None
