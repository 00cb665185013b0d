"""Styles of tiles: from values to colours by ranges, colour maps and classes; pictures and legends."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from odc_openeo.errors import ServiceConfigInvalid
from odc_openeo.formats.colors import Rgba, format_color, make_color_table, parse_color, put_on_white
from odc_openeo.services.model import Ranges

LEVELS: Final = 255
"""Colours of a colour map in a picture; one more is transparent."""

MEDIA_TYPES: Final = {"PNG": "image/png", "JPEG": "image/jpeg", "WebP": "image/webp"}
EXTENSIONS: Final = {"PNG": "png", "JPEG": "jpg", "WebP": "webp"}
QUALITY: Final = 85

Colors = str | Sequence[str] | Mapping[str, str]
"""A colour map: its name, its colours, or the colours of classes."""


def check_colormap(colors: Any) -> None:
    """Raise ServiceConfigInvalid unless it is a colour map."""
    if isinstance(colors, Mapping):
        _parse_classes(colors)
    else:
        _make_table(colors, 2)


def _invalid_colormap(reason: str) -> ServiceConfigInvalid:
    return ServiceConfigInvalid(parameter="colormap", reason=reason)


def _make_table(colors: str | Sequence[str], levels: int) -> np.ndarray:
    try:
        return make_color_table(colors, levels)
    except ValueError as error:
        raise _invalid_colormap(str(error)) from error


def _parse_classes(colors: Mapping[str, str]) -> dict[float, Rgba]:
    if not 0 < len(colors) <= LEVELS:
        raise _invalid_colormap(f"provide 1 to {LEVELS} values.")
    try:
        values = [float(value) for value in colors]
    except ValueError as error:
        raise _invalid_colormap("the names of its members must be numbers.") from error
    try:
        return dict(zip(values, map(parse_color, colors.values()), strict=True))
    except ValueError as error:
        raise _invalid_colormap(str(error)) from error


@dataclass(frozen=True)
class Style:
    """How values become a picture: ``ranges`` for each band, and a colour map for a single band."""

    ranges: Ranges
    colors: Colors | None
    format: str

    def draw_picture(self, values: np.ndarray, has_data: np.ndarray) -> bytes:
        """Draw values (bands, y, x), transparent where ``has_data`` (y, x) is False."""
        if isinstance(self.colors, Mapping):
            indices, table = self._classify_values(values[0])
            return self._encode_image(_draw_indexed(indices, table, has_data))
        shades = np.stack([_stretch_values(v, r, has_data) for v, r in zip(values, self.ranges, strict=True)])
        if self.colors is not None:
            indices = np.rint(shades[0] * (LEVELS - 1)).astype(np.uint8)
            return self._encode_image(_draw_indexed(indices, _make_table(self.colors, LEVELS), has_data))
        return self._encode_image(_draw_shades(np.rint(shades * 255).astype(np.uint8), has_data))

    def _classify_values(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        classes = _parse_classes(self.colors)  # type: ignore[arg-type]
        indices = np.full(values.shape, LEVELS, np.uint8)
        for index, value in enumerate(classes):
            indices[values == value] = index
        return indices, np.array([*classes.values()], np.uint8)

    def _encode_image(self, image: Image.Image) -> bytes:
        file = io.BytesIO()
        if self.format == "PNG":
            image.save(file, "PNG", compress_level=1)
        elif self.format == "WebP":
            image.convert("RGBA").save(file, "WEBP", quality=QUALITY, method=2)
        else:
            put_on_white(image).save(file, "JPEG", quality=QUALITY)
        return file.getvalue()

    def describe_legend(self, names: Sequence[str]) -> dict[str, Any]:
        """Describe the colours as JSON, for clients that draw legends themselves."""
        if isinstance(self.colors, Mapping):
            classes = _parse_classes(self.colors)
            return {"classes": [{"value": v, "color": format_color(c)} for v, c in classes.items()]}
        bands = [
            {"name": name or None, "minimum": low, "maximum": high}
            for name, (low, high) in zip(names, self.ranges, strict=True)
        ]
        if len(bands) > 1:
            return {"bands": bands}
        table = _make_table(self.colors or ["black", "white"], 11)
        values = np.linspace(*self.ranges[0], 11)
        stops = [{"value": float(v), "color": format_color(c)} for v, c in zip(values, table, strict=True)]
        return {"bands": bands, "stops": stops}

    def draw_legend(self, names: Sequence[str]) -> bytes:
        """Draw a PNG that explains the colours, to be shown next to a map."""
        legend = self.describe_legend(names)
        if "classes" in legend:
            return _draw_rows([(c["color"], f"{c['value']:g}") for c in legend["classes"]])
        if "stops" in legend:
            return _draw_rows([(s["color"], f"{s['value']:.4g}") for s in legend["stops"]])
        parts = zip(("#ff0000", "#00ff00", "#0000ff", "#00000000"), legend["bands"], strict=False)
        return _draw_rows([(c, f"{b['name']}: {b['minimum']:.4g} … {b['maximum']:.4g}") for c, b in parts])


def _stretch_values(values: np.ndarray, limits: tuple[float, float], has_data: np.ndarray) -> np.ndarray:
    """Stretch values to numbers from 0 to 1."""
    low, high = limits
    usable = np.where(has_data, values, low).astype(float)
    return np.clip((usable - low) / ((high - low) or 1), 0, 1)


def _draw_shades(shades: np.ndarray, has_data: np.ndarray) -> Image.Image:
    opacity = np.where(has_data, 255, 0).astype(np.uint8)
    if len(shades) == 4:
        opacity = np.minimum(opacity, shades[3])
    planes = [*shades[:3]]
    if (opacity == 255).all():
        return Image.fromarray(planes[0] if len(planes) == 1 else np.dstack(planes))
    return Image.fromarray(np.dstack([*planes, opacity]))


def _draw_indexed(indices: np.ndarray, table: np.ndarray, has_data: np.ndarray) -> Image.Image:
    """Draw a picture with a palette, whose last colour is transparent."""
    palette = np.zeros((256, 4), np.uint8)
    palette[: len(table)] = table
    image = Image.fromarray(np.where(has_data, indices, LEVELS).astype(np.uint8))
    image.putpalette(palette[:, :3].tobytes())
    image.info["transparency"] = palette[:, 3].tobytes()
    return image


ROW: Final = 20


def _draw_rows(rows: Sequence[tuple[str, str]]) -> bytes:
    font = ImageFont.load_default(12)
    width = 40 + max(int(font.getlength(text)) for _, text in rows)
    image = Image.new("RGBA", (width, ROW * len(rows) + 4), "white")
    draw = ImageDraw.Draw(image)
    for number, (color, text) in enumerate(rows):
        top = number * ROW + 2
        draw.rectangle((4, top, 28, top + ROW - 3), fill=color, outline="#888888")
        draw.text((34, top + 2), text, fill="black", font=font)
    return _encode_png(image)


def _encode_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def draw_empty_tile(size: int, format_: str) -> bytes:
    """Draw the tile of an area without data."""
    style = Style([(0.0, 1.0)], None, format_)
    return style.draw_picture(np.zeros((1, size, size)), np.zeros((size, size), bool))


def draw_notice(text: str, size: int = 256) -> bytes:
    """Draw a PNG that says why there is no tile, readable on any map."""
    image = Image.new("RGBA", (size, size), (255, 255, 255, 215))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(12)
    draw.rectangle((0, 0, size - 1, size - 1), outline="#b00020", width=2)
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if font.getlength(longer) <= size - 20 or not line:
            line = longer
        else:
            lines.append(line)
            line = word
    draw.multiline_text((10, 10), "\n".join([*lines, line]), fill="#b00020", font=font, spacing=3)
    return _encode_png(image)
