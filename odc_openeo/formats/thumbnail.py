"""A small picture of what was written, to be shown beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from odc_openeo.foreign_rasters import LocalFolder, open_foreign_raster
from odc_openeo.formats import gtiff
from odc_openeo.formats.model import Asset
from odc_openeo.formats.storing import storing

SIDE: Final = 256
ROLE: Final = "thumbnail"
NAME: Final = "thumbnail.png"
COLOURS: Final = (("B04", "B03", "B02"), ("red", "green", "blue"))
"""Names of bands that are red, green and blue."""

STRETCH: Final = (2, 98)
"""Percentiles of the values that become black and white."""

_PICTURES: Final = ("image/png", "image/jpeg")


def thumbnail(assets: Sequence[Asset], folder: Path) -> Asset | None:
    """Write a picture of the first GeoTIFF or picture, of at most 256 pixels a side; None if there is none.

    Bands known to be red, green and blue are shown as such, else the first band in grey; no-data is
    transparent. Only an overview is read.
    """
    source = next((a for a in assets if a.media_type in (gtiff.MEDIA_TYPE, *_PICTURES)), None)
    if source is None:
        return None
    picture = _picture(source.path) if source.media_type in _PICTURES else _raster(source.path)
    if picture is None:
        return None
    path = folder / NAME
    with storing():
        picture.save(path, format="PNG")
    return Asset(path, "image/png", "Thumbnail", roles=(ROLE,))


def _picture(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.thumbnail((SIDE, SIDE))
        return image.copy()


def _raster(path: Path) -> Image.Image | None:
    with open_foreign_raster(str(path), LocalFolder(path.parent)) as file:
        if np.dtype(file.dtypes[0]).kind == "c":
            return None
        shrink = max(file.width, file.height, SIDE) / SIDE
        shape = (max(round(file.height / shrink), 1), max(round(file.width / shrink), 1))
        indexes = _indexes(file.descriptions)
        pixels = file.read(indexes, out_shape=(len(indexes), *shape), masked=True).astype("float32")
    shown = ~np.ma.getmaskarray(pixels).any(axis=0) & np.isfinite(pixels.data).all(axis=0)
    shades = _stretched(pixels.data, shown)
    opacity = np.where(shown, 255, 0).astype("uint8")
    return Image.fromarray(np.dstack([*shades, opacity]), "LA" if len(shades) == 1 else "RGBA")


def _indexes(names: Sequence[str | None]) -> list[int]:
    known = [str(name) for name in names]
    found = (colours for colours in COLOURS if set(colours) <= set(known))
    return [known.index(name) + 1 for name in next(found, known[:1])]


def _stretched(pixels: np.ndarray, shown: np.ndarray) -> np.ndarray:
    values = pixels[:, shown]
    low, high = np.percentile(values, STRETCH) if values.size else (0.0, 1.0)
    scaled = (np.where(shown, pixels, low) - low) / max(high - low, np.finfo("float32").tiny)
    return (255 * scaled.clip(0, 1)).astype("uint8")
