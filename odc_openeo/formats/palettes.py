"""Colour tables of single bands: colours by value, or blended between a list of colours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from odc_openeo.formats.colors import Rgba, make_color_table, parse_color
from odc_openeo.formats.options import make_option_error

MOST_VALUES: Final = 65536

COLORMAP: Final[dict[str, Any]] = {
    "type": ["object", "array", "string", "null"],
    "description": (
        "Colours for a single band: an object from value to colour; or colours, evenly spaced over the range "
        "of the data type and blended in between, e.g. ['brown', 'yellow', 'green']; or the name of a colour "
        "map, e.g. 'viridis'. A colour is a name, '#rrggbb' or '#rrggbbaa', an array of red, green, blue and "
        "perhaps opacity (from 0 to 255, or fractions from 0.0 to 1.0), or an integer 0xRRGGBBAA."
    ),
    "items": {"type": ["string", "array", "integer"]},
    "minItems": 2,
    "maxItems": 256,
    "minProperties": 1,
    "maxProperties": MOST_VALUES,
    "maxLength": 100,
    "default": None,
}


def parse_palette(colormap: Any) -> dict[int, Rgba] | None:
    """Parse colours by value; None for colours that are blended in between.

    Raises:
        ProcessParameterInvalid: a value is not a whole number from 0 to 65535, or a colour is not valid.
    """
    if not isinstance(colormap, Mapping):
        return None
    palette: dict[int, Rgba] = {}
    for key, color in colormap.items():
        if not re.fullmatch(r"0*\d{1,5}(\.0*)?", key, re.ASCII) or float(key) >= MOST_VALUES:
            raise make_colormap_error(f"'{key[:40]}' is not a whole number from 0 to {MOST_VALUES - 1}.")
        palette[int(float(key))] = _parse_any_color(color)
    return palette


def make_blended_table(colormap: Any, levels: int) -> np.ndarray:
    """Make a table (levels, RGBA) of a colour map by name, or of colours blended at even steps.

    Raises:
        ProcessParameterInvalid: there is no such colour map or colour.
    """
    try:
        if isinstance(colormap, str):
            return make_color_table(colormap, levels)
        hexes = ["#{:02x}{:02x}{:02x}{:02x}".format(*_parse_any_color(color)) for color in colormap]
        return make_color_table(hexes, levels)
    except ValueError as error:
        raise make_colormap_error(str(error)) from error


def make_colormap_error(reason: str) -> Exception:
    """Make the error for a colour map that is not valid, or doesn't fit the data."""
    return make_option_error(f"option 'colormap': {reason}")


def _parse_any_color(color: Any) -> Rgba:
    """Parse a colour as a string, as an array of three or four numbers, or as an integer 0xRRGGBBAA."""
    if isinstance(color, str) and len(color) <= 40:
        try:
            return parse_color(color)
        except ValueError as error:
            raise make_colormap_error(str(error)) from error
    if type(color) is int and 0 <= color < 2**32:
        return color >> 24, color >> 16 & 255, color >> 8 & 255, color & 255
    if isinstance(color, list | tuple) and len(color) in (3, 4):
        parts = _parse_parts(color)
        if parts is not None:
            return parts
    text = repr(color)[:60]
    raise make_colormap_error(
        f"{text} is not a valid colour. Use a name, '#rrggbb', [red, green, blue] or an integer 0xRRGGBBAA."
    )


def _parse_parts(color: Sequence[Any]) -> Rgba | None:
    if not all(type(part) in (int, float) for part in color):
        return None
    whole = all(type(part) is int for part in color)
    highest = 255 if whole else 1
    if not all(0 <= part <= highest for part in color):
        return None
    parts = [part if whole else round(part * 255) for part in color]
    red, green, blue, opacity = [*parts, 255][:4]
    return red, green, blue, opacity
