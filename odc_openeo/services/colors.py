"""Values → colours: ranges, colour maps by name, by list and by class; pictures and legends."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from cmap import Colormap
from PIL import Image, ImageColor, ImageDraw, ImageFont

from odc_openeo.errors import ServiceConfigInvalid
from odc_openeo.services.model import Ranges

LEVELS: Final = 255
"""Colours of a colour map in a picture; one more is transparent."""

MEDIA_TYPES: Final = {"PNG": "image/png", "JPEG": "image/jpeg", "WebP": "image/webp"}
EXTENSIONS: Final = {"PNG": "png", "JPEG": "jpg", "WebP": "webp"}
QUALITY: Final = 85

Colors = str | Sequence[str] | Mapping[str, str]
"""A colour map: its name, its colours, or the colours of classes."""


def check_colormap(given: Any) -> None:
    """Raise ServiceConfigInvalid unless it is a colour map."""
    if isinstance(given, Mapping):
        _classes(given)
    else:
        _table(given, 2)


def _invalid(reason: str) -> ServiceConfigInvalid:
    return ServiceConfigInvalid(parameter="colormap", reason=reason)


def _rgba(color: str) -> tuple[int, int, int, int]:
    try:
        return ImageColor.getcolor(color, "RGBA")  # type: ignore[return-value]
    except ValueError as error:
        raise _invalid(f"'{color}' is no colour. Write a name or #rrggbb.") from error


def _table(colors: str | Sequence[str], levels: int) -> np.ndarray:
    """The colours (RGBA, 0 to 255) at even steps from the lowest to the highest value."""
    if isinstance(colors, str):
        try:
            return np.rint(np.asarray(Colormap(colors).lut(levels)) * 255).astype(np.uint8)
        except (ValueError, TypeError) as error:
            raise _invalid(f"there is no colour map '{colors}'. Try viridis, or give colours.") from error
    stops = np.array([_rgba(color) for color in colors], float)
    at = np.linspace(0, 1, len(stops))
    steps = np.linspace(0, 1, levels)
    return np.rint(np.stack([np.interp(steps, at, c) for c in stops.T], axis=-1)).astype(np.uint8)


def _classes(colors: Mapping[str, str]) -> dict[float, tuple[int, int, int, int]]:
    if not 0 < len(colors) <= LEVELS:
        raise _invalid(f"give 1 to {LEVELS} values.")
    try:
        return {float(value): _rgba(color) for value, color in colors.items()}
    except ValueError as error:
        raise _invalid("the names of its members must be numbers.") from error


@dataclass(frozen=True)
class Style:
    """How values become a picture: ``ranges`` for each band, and a colour map for a single band."""

    ranges: Ranges
    colors: Colors | None
    format: str

    def picture(self, values: np.ndarray, shown: np.ndarray) -> bytes:
        """A picture of values (bands, y, x), transparent where they are not ``shown`` (y, x)."""
        if isinstance(self.colors, Mapping):
            indices, table = self._classified(values[0])
            return self._encode(_indexed(indices, table, shown))
        shades = np.stack([_stretched(v, r, shown) for v, r in zip(values, self.ranges, strict=True)])
        if self.colors is not None:
            indices = np.rint(shades[0] * (LEVELS - 1)).astype(np.uint8)
            return self._encode(_indexed(indices, _table(self.colors, LEVELS), shown))
        return self._encode(_shaded(np.rint(shades * 255).astype(np.uint8), shown))

    def _classified(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        classes = _classes(self.colors)  # type: ignore[arg-type]
        indices = np.full(values.shape, LEVELS, np.uint8)
        for index, value in enumerate(classes):
            indices[values == value] = index
        return indices, np.array([*classes.values()], np.uint8)

    def _encode(self, image: Image.Image) -> bytes:
        file = io.BytesIO()
        if self.format == "PNG":
            image.save(file, "PNG", compress_level=3)
        elif self.format == "WebP":
            image.convert("RGBA").save(file, "WEBP", quality=QUALITY, method=2)
        else:
            on_white(image).save(file, "JPEG", quality=QUALITY)
        return file.getvalue()

    def legend(self, names: Sequence[str]) -> dict[str, Any]:
        """The meaning of the colours, for people's own drawings."""
        if isinstance(self.colors, Mapping):
            found = _classes(self.colors)
            return {"classes": [{"value": v, "color": _hex(c)} for v, c in found.items()]}
        bands = [
            {"name": name or None, "minimum": low, "maximum": high}
            for name, (low, high) in zip(names, self.ranges, strict=True)
        ]
        if len(bands) > 1:
            return {"bands": bands}
        table = _table(self.colors or ["black", "white"], 11)
        values = np.linspace(*self.ranges[0], 11)
        stops = [{"value": float(v), "color": _hex(c)} for v, c in zip(values, table, strict=True)]
        return {"bands": bands, "stops": stops}

    def legend_picture(self, names: Sequence[str]) -> bytes:
        """The meaning of the colours, to be shown beside a map."""
        told = self.legend(names)
        if "classes" in told:
            return _lines([(c["color"], f"{c['value']:g}") for c in told["classes"]])
        if "stops" in told:
            return _lines([(s["color"], f"{s['value']:.4g}") for s in told["stops"]])
        parts = zip(("#ff0000", "#00ff00", "#0000ff", "#00000000"), told["bands"], strict=False)
        return _lines([(c, f"{b['name']}: {b['minimum']:.4g} … {b['maximum']:.4g}") for c, b in parts])


def _stretched(values: np.ndarray, limits: tuple[float, float], shown: np.ndarray) -> np.ndarray:
    """Values as numbers from 0 to 1."""
    low, high = limits
    usable = np.where(shown, values, low).astype(float)
    return np.clip((usable - low) / ((high - low) or 1), 0, 1)


def _shaded(shades: np.ndarray, shown: np.ndarray) -> Image.Image:
    opacity = np.where(shown, 255, 0).astype(np.uint8)
    if len(shades) == 4:
        opacity = np.minimum(opacity, shades[3])
    planes = [*shades[:3]]
    if (opacity == 255).all():
        return Image.fromarray(planes[0] if len(planes) == 1 else np.dstack(planes))
    return Image.fromarray(np.dstack([*planes, opacity]))


def _indexed(indices: np.ndarray, table: np.ndarray, shown: np.ndarray) -> Image.Image:
    """A picture with a palette; its last colour is transparent."""
    palette = np.zeros((256, 4), np.uint8)
    palette[: len(table)] = table
    image = Image.fromarray(np.where(shown, indices, LEVELS).astype(np.uint8))
    image.putpalette(palette[:, :3].tobytes())
    image.info["transparency"] = palette[:, 3].tobytes()
    return image


def on_white(image: Image.Image) -> Image.Image:
    """The picture without transparency."""
    if not (image.mode in ("RGBA", "LA") or "transparency" in image.info):
        return image
    background = Image.new("RGBA", image.size, "white")
    background.alpha_composite(image.convert("RGBA"))
    return background.convert("RGB")


def _hex(color: Sequence[int]) -> str:
    return "#" + "".join(f"{int(c):02x}" for c in (color if color[3] != 255 else color[:3]))


ROW: Final = 20


def _lines(rows: Sequence[tuple[str, str]]) -> bytes:
    font = ImageFont.load_default(12)
    width = 40 + max(int(font.getlength(text)) for _, text in rows)
    image = Image.new("RGBA", (width, ROW * len(rows) + 4), "white")
    draw = ImageDraw.Draw(image)
    for number, (color, text) in enumerate(rows):
        top = number * ROW + 2
        draw.rectangle((4, top, 28, top + ROW - 3), fill=color, outline="#888888")
        draw.text((34, top + 2), text, fill="black", font=font)
    return _png(image)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def nothing(size: int, format_: str) -> bytes:
    """A tile where there is no data."""
    style = Style([(0.0, 1.0)], None, format_)
    return style.picture(np.zeros((1, size, size)), np.zeros((size, size), bool))


def notice(text: str, size: int = 256) -> bytes:
    """A PNG that says why there is no tile, readable on any map."""
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
    return _png(image)
