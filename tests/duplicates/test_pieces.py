"""Rows in pieces and the pairs of a piece: what a comparison of all rows with all rows would find."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from pipeline.cluster.calls import Here
from pipeline.duplicates import pairs, pieces
from pipeline.duplicates.grouping import Groups
from pipeline.duplicates.pairs import near_pairs
from tests.support.pictures import planted


def compared(vectors: np.ndarray, distance: float) -> set[tuple[int, int]]:
    """The near pairs of all pieces."""
    rows = np.arange(len(vectors))
    found = set[tuple[int, int]]()
    for piece in pieces.pieces(vectors, rows, Here()):
        table = near_pairs(vectors[piece], piece, distance)
        found |= set(zip(table["first"].to_pylist(), table["second"].to_pylist(), strict=True))
    return found


def by_brute_force(vectors: np.ndarray, distance: float, of_rows: np.ndarray) -> set[tuple[int, int]]:
    """The near pairs of these rows with all others."""
    units = pairs.unit(vectors)
    rows, others = np.nonzero(units[of_rows] @ units.T >= 1 - distance)
    near = zip(of_rows[rows].tolist(), others.tolist(), strict=True)
    return {(min(pair), max(pair)) for pair in near if pair[0] != pair[1]}


def test_pieces_miss_at_most_one_near_pair_in_a_hundred_of_50_000_vectors() -> None:
    vectors, places = planted(50_000, 32, 500, 0.05)
    vectors = vectors.astype(np.float16)
    asked = set(places[:, 0].tolist())
    expected = {pair for pair in by_brute_force(vectors, 0.05, places[:, 0]) if not asked.isdisjoint(pair)}
    assert len(expected) >= 0.95 * len(places)
    found = {pair for pair in compared(vectors, 0.05) if not asked.isdisjoint(pair)}
    assert len(found & expected) >= 0.99 * len(expected)
    assert len(found - expected) <= 0.001 * len(expected)  # on the very border


def test_a_piece_of_several_blocks_gives_each_near_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "BLOCK_ROWS", 70)
    vectors = planted(300, 8, 40, 0.02)[0].astype(np.float16)
    table = near_pairs(vectors, np.arange(300) * 10, 0.02)
    found = list(zip(table["first"].to_pylist(), table["second"].to_pylist(), strict=True))
    assert sorted(found) == sorted(
        (10 * one, 10 * other) for one, other in by_brute_force(vectors, 0.02, np.arange(300))
    )


def test_a_row_of_a_dense_place_keeps_its_nearest_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "NEAREST", 2)
    angles = np.array([0.0, 0.05, 0.1, 0.02])
    vectors = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float16)
    table = near_pairs(vectors, np.arange(4), 0.05)
    assert table.filter(pc.field("first") == 0)["second"].to_pylist() == [3, 1]


def test_no_piece_is_too_large_even_if_all_vectors_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_ROWS", 100)
    monkeypatch.setattr(pieces, "CLUSTER_ROWS", 25)
    same, different = np.ones((900, 8), np.float16), planted(600, 8, 1, 0.1)[0].astype(np.float16)
    vectors = np.concatenate([same, different])
    found = list(pieces.pieces(vectors, np.arange(len(vectors)), Here()))
    assert max(map(len, found)) <= 100
    assert all((np.diff(piece) > 0).all() for piece in found)
    assert set(np.concatenate(found)) == set(range(len(vectors)))


def test_arguments_are_made_one_after_the_other() -> None:
    made = list[int]()

    def calls() -> Iterator[tuple[int]]:
        for number in range(3):
            made.append(number)
            yield (number,)

    results: Iterator[Any] = Here().map(lambda number: len(made), calls())
    assert list(results) == [1, 2, 3]


@pytest.mark.parametrize(
    ("joined", "largest", "groups", "refused"),
    [
        ([(0, 1), (1, 2), (3, 4), (0, 2)], 9, [{0, 1, 2}, {3, 4}, {5}], 0),
        ([(0, 1), (2, 3), (1, 2), (3, 4)], 3, [{0, 1}, {2, 3, 4}, {5}], 1),
    ],
)
def test_pairs_become_groups(
    joined: Iterable[tuple[int, int]], largest: int, groups: list[set[int]], refused: int
) -> None:
    made = Groups(6, largest)
    made.join(joined)
    roots = made.roots()
    assert [set(np.flatnonzero(roots == root).tolist()) for root in dict.fromkeys(roots.tolist())] == groups
    assert made.refused == refused
