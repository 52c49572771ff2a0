"""Vectors as queries: from a file, from stdin or from Python, and what makes one fit for a search."""

import io
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import QueryError
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import redacted

STDIN = "-"
"""The name of a file that stands for stdin."""
NPY = b"\x93NUMPY"
"""The first bytes of a .npy file."""


def checked(values: Sequence[float] | NDArray[Any], dim: int, named: str) -> NDArray[np.float32]:
    """Return a query as float32 (D,). A list of one vector is that vector.

    `named` is the query in messages, as in "the vector of q.npy". Raises: QueryError if it is not a vector of
    `dim` finite numbers, or is zero.
    """
    try:
        with np.errstate(over="ignore"):  # an infinite value is refused below
            found = np.asarray(values, np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise QueryError(f"{_sentence(named)} is not a list of numbers.") from error
    found = found[0] if found.ndim == 2 and len(found) == 1 else found
    if found.ndim != 1:
        raise QueryError(f"{_sentence(named)} has the shape {found.shape}; give one vector of {dim} numbers.")
    if len(found) != dim:
        raise QueryError(f"{_sentence(named)} has {len(found)} numbers, but the vectors of this space have {dim}.")
    if not np.isfinite(found).all():
        raise QueryError(f"{_sentence(named)} has a value that is not a finite number.")
    if not np.linalg.norm(found):
        raise QueryError(f"{_sentence(named)} is zero, so it has no direction and no nearest images.")
    return found


def read(file: str, storage: Storage) -> Any:
    """Read the values of a .npy file or a JSON list; of stdin if the file is `-`.

    Raises: QueryError if it is neither or does not exist, StorageError.
    """
    data = sys.stdin.buffer.read() if file == STDIN else storage.read(file)
    named = "stdin" if file == STDIN else redacted(file)
    if data is None:
        raise QueryError(f"The file {named} does not exist.")
    try:
        if data.startswith(NPY):
            return np.load(io.BytesIO(data), allow_pickle=False)
        return json.loads(data)
    except (ValueError, EOFError, RecursionError) as error:
        raise QueryError(f"{_sentence(named)} is neither a .npy file of numbers nor a JSON list.") from error


def _sentence(named: str) -> str:
    return named[:1].upper() + named[1:] if named == "stdin" or named.startswith("the ") else named
