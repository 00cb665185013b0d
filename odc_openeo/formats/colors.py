"""Colours of pictures: parsed from names and ``#rrggbb``, blended into tables, put on white."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageColor

Rgba = tuple[int, int, int, int]
"""Red, green, blue and opacity, from 0 to 255."""


def parse_color(color: str) -> Rgba:
    """Parse a name or ``#rrggbb``; ValueError if it is neither."""
    try:
        return ImageColor.getcolor(color, "RGBA")  # type: ignore[return-value]
    except ValueError as error:
        raise ValueError(f"'{color}' is not a valid colour. Use a name or #rrggbb.") from error


def format_color(color: Sequence[int]) -> str:
    """Write a colour as ``#rrggbb``, or ``#rrggbbaa`` if it is not opaque."""
    return "#" + "".join(f"{int(c):02x}" for c in (color if color[3] != 255 else color[:3]))


def make_color_table(colors: str | Sequence[str], levels: int) -> np.ndarray:
    """Make a table of colours (RGBA, 0 to 255) at even steps from the lowest to the highest value.

    ``colors`` is the name of a colour map, or colours that are evenly spaced and blended in between.

    Raises:
        ValueError: there is no such colour map or colour.
    """
    if isinstance(colors, str):
        # Reading its catalogue takes long, and few processes need it.
        from cmap import Colormap

        try:
            return np.rint(np.asarray(Colormap(colors).lut(levels)) * 255).astype(np.uint8)
        except (ValueError, TypeError) as error:
            raise ValueError(f"there is no colour map '{colors}'. Try viridis, or list colours.") from error
    stops = np.array([parse_color(color) for color in colors], float)
    positions = np.linspace(0, 1, len(stops))
    steps = np.linspace(0, 1, levels)
    channels = [np.interp(steps, positions, channel) for channel in stops.T]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def put_on_white(image: Image.Image) -> Image.Image:
    """Put a picture on a white background, without transparency; grey pictures stay grey."""
    if not (image.mode in ("RGBA", "LA") or "transparency" in image.info):
        return image
    background = Image.new("RGBA", image.size, "white")
    background.alpha_composite(image.convert("RGBA"))
    return background.convert("L" if image.mode == "LA" else "RGB")
