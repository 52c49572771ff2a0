"""The near pairs of one piece: each vector is compared with each other one, in blocks of bounded memory."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

DECIMALS = 6
"""Distances are rounded to what float32 can tell apart."""
BLOCK_ROWS = 2_048
"""Rows on each side of one matrix of cosines, which takes 17 MB."""
NEAREST = 32
"""Near rows that one row keeps of one block. More add nothing: groups are bounded, too."""
PAIRS = pa.schema([("first", pa.int64()), ("second", pa.int64()), ("distance", pa.float32())])
"""Two rows, the lower number first, and their cosine distance."""

F16 = np.float16
F32 = np.float32
I64 = np.int64


def near_pairs(vectors: NDArray[F16], rows: NDArray[I64], distance: float) -> pa.Table:
    """Return the `PAIRS` of rows that are at most `distance` apart.

    `vectors` (N, D) are those of `rows` (N,), which are in ascending order. A vector of zeros is near none.
    """
    units, found = unit(vectors), [PAIRS.empty_table()]
    for top in range(0, len(rows), BLOCK_ROWS):
        for left in range(top, len(rows), BLOCK_ROWS):
            first, second, apart = _near(units[top : top + BLOCK_ROWS], units[left : left + BLOCK_ROWS], distance)
            if top == left:  # each pair once, and no row with itself
                above = first < second
                first, second, apart = first[above], second[above], apart[above]
            some = _nearest(first, second, apart)
            columns = [rows[top + first[some]], rows[left + second[some]], apart[some]]
            found.append(pa.table(columns, schema=PAIRS))
    return pa.concat_tables(found).combine_chunks()


def unit(vectors: NDArray[F16]) -> NDArray[F32]:
    """Return the vectors (N, D) at length 1. A vector of zeros stays one."""
    scaled: NDArray[F32] = vectors.astype(F32)
    lengths = np.sqrt(np.einsum("nd,nd->n", scaled, scaled))[:, np.newaxis]
    scaled /= np.where(lengths, lengths, F32(1))
    return scaled


def distances(cosines: NDArray[F32]) -> NDArray[F32]:
    """Return cosine distances, 1 − cos."""
    apart: NDArray[F32] = np.maximum(np.round(1 - cosines, DECIMALS), F32(0))
    return apart


def _near(
    upper: NDArray[F32], lower: NDArray[F32], distance: float
) -> tuple[NDArray[I64], NDArray[I64], NDArray[F32]]:
    """Return the places of near vectors in both blocks, and their distances."""
    cosines = upper @ lower.T
    first, second = np.nonzero(cosines >= F32(1 - distance - 0.5 * 10**-DECIMALS))
    return first, second, distances(cosines[first, second])


def _nearest(first: NDArray[I64], second: NDArray[I64], apart: NDArray[F32]) -> NDArray[I64]:
    """Return the places of the `NEAREST` pairs of each row in `first`."""
    order = np.lexsort((second, apart, first))
    of_row = first[order]
    rank = np.arange(len(order)) - np.searchsorted(of_row, of_row)
    return order[rank < NEAREST]
