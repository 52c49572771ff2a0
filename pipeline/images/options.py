"""Limits and policies of decoding, as plain values: the decoding child loads this module, but no pydantic."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeline.config import DecodeConfig


@dataclass(frozen=True)
class DecodeOptions:
    """The values of the config section `decode`, which is also where their defaults are."""

    fast: bool
    max_pixels: int
    max_side: int
    max_bytes: int
    timeout_s: float
    truncated: Literal["error", "pad"]

    @classmethod
    def from_config(cls, config: "DecodeConfig") -> "DecodeOptions":
        """Copy the values of a validated config section."""
        return cls(**config.model_dump())
