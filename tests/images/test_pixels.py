"""Image i belongs to the i-th row without an error, and nothing else passes."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from pipeline import schema
from pipeline.images.pixels import DensePixels

HEIGHT, WIDTH = 4, 2


def images(count: int) -> NDArray[np.uint8]:
    return np.arange(count, dtype=np.uint8).repeat(HEIGHT * WIDTH * 3).reshape(count, HEIGHT, WIDTH, 3)


def dense(decoded: list[bool]) -> DensePixels:
    return DensePixels(images(sum(decoded)), np.array(decoded, np.bool_))


def rows(column: pa.Array, decoded: list[bool]) -> pa.Table:
    codes = pa.array([None if one else "corrupt" for one in decoded], pa.string())
    return pa.table({schema.PIXELS: column, "error_code": codes})


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_an_image_stays_with_its_row_however_a_block_is_cut(decoded: list[bool], start: int, length: int) -> None:
    block = rows(dense(decoded).to_column(), decoded)
    part = DensePixels.from_rows(block.slice(start, length), HEIGHT, WIDTH)
    expected = iter(range(sum(decoded)))
    numbers = [next(expected) if one else None for one in decoded][start : start + length]
    assert part.images[:, 0, 0, 0].tolist() == [number for number in numbers if number is not None]
    assert part.decoded.tolist() == decoded[start : start + length]


def test_blocks_that_were_put_together_are_read_as_one() -> None:
    one, two = rows(dense([True, False]).to_column(), [True, False]), rows(dense([True]).to_column(), [True])
    found = DensePixels.from_rows(pa.concat_tables([one, two, one]), HEIGHT, WIDTH)
    assert found.decoded.tolist() == [True, False, True, True, False]
    assert len(found.images) == 3


def test_a_block_of_one_chunk_is_read_without_a_copy() -> None:
    made = dense([True, False, True])
    found = DensePixels.from_rows(rows(made.to_column(), [True, False, True]), HEIGHT, WIDTH)
    assert np.shares_memory(found.images, made.images)


def test_the_images_of_some_rows_are_found_behind_rows_without_one() -> None:
    chosen = np.array([True, False, True, False, True])
    assert dense([False, True, True, True, True]).of_rows(chosen)[:, 0, 0, 0].tolist() == [1, 3]


def test_a_row_that_is_decoded_but_has_no_pixels_is_refused() -> None:
    block = rows(dense([True, False, True]).to_column(), [True, True, True])
    with pytest.raises(ValueError, match="row 1 of 3: 0 bytes"):
        DensePixels.from_rows(block, HEIGHT, WIDTH)


def test_a_failed_row_with_pixels_is_refused_and_its_code_is_named() -> None:
    block = rows(dense([True, True]).to_column(), [True, False])
    with pytest.raises(ValueError, match=r"row 1 of 2: 24 bytes .* corrupt"):
        DensePixels.from_rows(block, HEIGHT, WIDTH)


def test_pixels_of_another_size_are_refused() -> None:
    block = rows(dense([True, True]).to_column(), [True, True])
    with pytest.raises(ValueError, match="row 0 of 2: 24 bytes of pixels at 2x2"):
        DensePixels.from_rows(block, 2, 2)


@pytest.mark.parametrize(
    ("found", "decoded"),
    [
        (images(2), [True, False]),
        (images(1), [True, True]),
        (images(2).astype(np.float32), [True, True]),
        (images(2)[..., :2], [True, True]),
        (images(2)[0], [True, True]),
    ],
)
def test_images_that_do_not_fit_the_rows_are_refused(found: NDArray[np.uint8], decoded: list[bool]) -> None:
    with pytest.raises(ValueError, match=r"images for|uint8"):
        DensePixels(found, np.array(decoded))
