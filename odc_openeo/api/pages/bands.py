"""Choice of bands for displaying a collection as a colour or greyscale picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from odc_openeo.catalog import Band

NATURAL_COLOR: Final = ("red", "green", "blue")
FALSE_COLOR: Final = ("nir", "red", "green")


def choose_display_bands(bands: Sequence[Band]) -> list[Band]:
    """Choose red, green and blue; else near infrared, red and green; else a single band.

    A single band is one with a common name if there is one, else one of floats, else the first.
    """
    for names in (NATURAL_COLOR, FALSE_COLOR):
        matches = [next((b for b in bands if b.common_name == name), None) for name in names]
        display_bands = [band for band in matches if band is not None]
        if len(display_bands) == len(names):
            return display_bands
    with_common_name = [b for b in bands if b.common_name]
    floats = [b for b in bands if b.is_float]
    return [*with_common_name, *floats, *bands][:1]
