"""The pixels of a block of rows. They are dense: only rows without an error have an image.

This module owns that rule. Image i belongs to the i-th row whose `error_code` is null, from the decoding child to
the engine.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import schema


@dataclass(frozen=True)
class DensePixels:
    """`images`, uint8 (N, H, W, 3) RGB, and which rows they belong to: `decoded`, bool (rows,) with N true values.

    Raises: ValueError if these do not fit together.
    """

    images: NDArray[np.uint8]
    decoded: NDArray[np.bool_]

    def __post_init__(self) -> None:
        shape, marked = self.images.shape, int(np.count_nonzero(self.decoded))
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
            raise ValueError(f"pixels must be uint8 (N, H, W, 3), not {self.images.dtype} {shape}")
        if self.decoded.dtype != np.bool_ or self.decoded.ndim != 1 or marked != len(self.images):
            raise ValueError(f"{len(self.images)} images for {marked} decoded rows")

    @classmethod
    def from_rows(cls, rows: pa.Table, height: int, width: int) -> "DensePixels":
        """Read the pixels of decoded rows; without a copy if their column has one chunk.

        Raises: ValueError if a row without an error has no image of `height` x `width`, or a row with an error has
        an image.
        """
        column = rows.column(schema.PIXELS)
        array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        decoded = rows.column("error_code").is_null().to_numpy()
        _, offsets, data = array.buffers()
        ends = np.frombuffer(offsets or b"\0" * 8, np.int64)[array.offset :][: len(array) + 1]
        wrong = np.flatnonzero(np.diff(ends) != decoded * (height * width * 3))
        if len(wrong):
            raise ValueError(
                f"row {wrong[0]} of {len(array)}: {np.diff(ends)[wrong[0]]} bytes of pixels at {height}x{width}, "
                f"error_code {rows.column('error_code')[wrong[0]].as_py()}"
            )
        images = np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]].reshape(-1, height, width, 3)
        return cls(images, decoded)

    def to_column(self) -> pa.Array:
        """Return a column of `schema.PIXELS_TYPE`, null where a row has no image. It copies no pixels."""
        ends = np.cumsum(self.decoded, dtype=np.int64) * int(np.prod(self.images.shape[1:]))
        valid, offsets = pa.array(self.decoded).buffers()[1], np.append(np.int64(0), ends)
        buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(self.images))]
        return pa.Array.from_buffers(schema.PIXELS_TYPE, len(self.decoded), buffers)

    def of_rows(self, chosen: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return the images of the `chosen` rows, bool (rows,), that have one: uint8 (M, H, W, 3)."""
        return self.images[chosen[self.decoded]]
