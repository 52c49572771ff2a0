"""The way from decoded pixels to a model's input, as plain numbers. Decoding and the engines follow it.

It imports nothing heavy: the process that decodes images loads it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preprocessing:
    """From decoded RGB pixels to the model's input, as the model's own processor config says.

    Resize to `resize` (height, width), or the shorter side to `shortest_edge`, with the filter `resample`. Cut
    `crop` (height, width) from the centre. The result has `height` x `width` pixels. On the device, each value of
    channel c becomes value * scale[c] + bias[c].
    """

    resize: tuple[int, int] | None
    shortest_edge: int | None
    crop: tuple[int, int] | None
    resample: str
    scale: tuple[float, float, float]
    bias: tuple[float, float, float]
    height: int
    width: int
