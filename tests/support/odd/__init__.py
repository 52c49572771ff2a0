"""Odd image files, made by code, and what a person expects of each.

An expectation is an error code; or the size of the upright original, the notes, and the colour where there is one.
"""

from tests.support.odd.base import Odd
from tests.support.odd.formats import bmps, gifs, modern, small_formats, tiffs
from tests.support.odd.hostile_files import bombs, no_images
from tests.support.odd.jpegs import exifs, jpeg_damage, jpegs
from tests.support.odd.pngs import more_pngs, png_damage, pngs


def everything() -> list[Odd]:
    """The whole corpus."""
    parts = (
        jpegs,
        jpeg_damage,
        exifs,
        pngs,
        more_pngs,
        png_damage,
        gifs,
        bmps,
        tiffs,
        modern,
        small_formats,
        bombs,
        no_images,
    )
    return [odd for part in parts for odd in part()]
