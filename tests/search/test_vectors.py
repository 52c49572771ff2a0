"""Vectors of queries, from files and from stdin."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import QueryError
from pipeline.search import vectors
from tests.support.making import STORAGE

VECTOR = [0.5, -1.0, 2.0]


def npy(values: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values, np.float16))
    return buffer.getvalue()


@pytest.mark.parametrize("data", [npy(VECTOR), npy([VECTOR]), json.dumps(VECTOR).encode(), b"[[0.5, -1, 2]]\n"])
def test_a_file_or_stdin_gives_a_float32_vector(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "q").write_bytes(data)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    for file in (str(tmp_path / "q"), "-"):
        found = vectors.checked(vectors.read(file, STORAGE), 3, "the vector")
        assert (found.dtype, found.tolist()) == (np.float32, VECTOR)


@pytest.mark.parametrize("data", [b"", b"0.5 -1 2", npy(VECTOR)[:-2], b"\x93NUMPY", b"\xff\xfe"])
def test_another_file_is_one_sentence(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "q.npy").write_bytes(data)
    with pytest.raises(QueryError, match=r"q\.npy is neither a \.npy file of numbers nor a JSON list\.$"):
        vectors.read(str(tmp_path / "q.npy"), STORAGE)
    with pytest.raises(QueryError, match=r"The file .*none\.npy does not exist"):
        vectors.read(str(tmp_path / "none.npy"), STORAGE)


@pytest.mark.parametrize("values", [{"a": 1}, "abc", [[1, 2], [3]], [1, None, 2], None, True, [1e300, 1, 1]])
def test_other_json_is_one_sentence(values: object) -> None:
    with pytest.raises(QueryError, match=r"^The vector "):
        vectors.checked(values, 3, "the vector")  # type: ignore[arg-type]
