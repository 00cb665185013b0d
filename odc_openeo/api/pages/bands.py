"""Which bands of a collection are shown where three, or one, have to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from odc_openeo.catalog import Band

NATURAL: Final = ("red", "green", "blue")
FALSE: Final = ("nir", "red", "green")


def shown_bands(bands: Sequence[Band]) -> list[Band]:
    """Red, green and blue if there are; else infrared, red and green; else the first band with a meaning
    of its own."""
    for names in (NATURAL, FALSE):
        found = [next((b for b in bands if b.common_name == name), None) for name in names]
        three = [band for band in found if band is not None]
        if len(three) == len(names):
            return three
    known = [b for b in bands if b.common_name]
    numbers = [b for b in bands if b.is_float]
    return [*known, *numbers, *bands][:1]
