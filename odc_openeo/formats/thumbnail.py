"""A small picture of a result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from odc_openeo.formats import gtiff
from odc_openeo.formats.model import Asset
from odc_openeo.formats.write_errors import as_storage_failure
from odc_openeo.untrusted.rasters import LocalFolder, open_foreign_raster

SIDE: Final = 256
ROLE: Final = "thumbnail"
NAME: Final = "thumbnail.png"
COLOUR_BANDS: Final = (("B04", "B03", "B02"), ("red", "green", "blue"))
"""Names of the red, green and blue band."""

STRETCH: Final = (2, 98)
"""Percentiles of the values that become black and white."""

_PICTURES: Final = ("image/png", "image/jpeg")


def write_thumbnail(assets: Sequence[Asset], folder: Path) -> Asset | None:
    """Write a thumbnail of the first GeoTIFF or picture, at most 256 pixels per side; None if there is none.

    Red, green and blue bands are shown as such, else the first band in grey; no-data is
    transparent. Only an overview is read.
    """
    source = next((a for a in assets if a.media_type in (gtiff.MEDIA_TYPE, *_PICTURES)), None)
    if source is None:
        return None
    picture = _shrink_picture(source.path) if source.media_type in _PICTURES else _draw_raster(source.path)
    if picture is None:
        return None
    path = folder / NAME
    with as_storage_failure():
        picture.save(path, format="PNG")
    return Asset(path, "image/png", "Thumbnail", roles=(ROLE,))


def _shrink_picture(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.thumbnail((SIDE, SIDE))
        return image.copy()


def _draw_raster(path: Path) -> Image.Image | None:
    with open_foreign_raster(str(path), LocalFolder(path.parent)) as file:
        if np.dtype(file.dtypes[0]).kind == "c":
            return None
        shrink = max(file.width, file.height, SIDE) / SIDE
        shape = (max(round(file.height / shrink), 1), max(round(file.width / shrink), 1))
        indexes = _choose_bands(file.descriptions)
        pixels = file.read(indexes, out_shape=(len(indexes), *shape), masked=True).astype("float32")
    has_data = ~np.ma.getmaskarray(pixels).any(axis=0) & np.isfinite(pixels.data).all(axis=0)
    shades = _stretch_values(pixels.data, has_data)
    opacity = np.where(has_data, 255, 0).astype("uint8")
    return Image.fromarray(np.dstack([*shades, opacity]), "LA" if len(shades) == 1 else "RGBA")


def _choose_bands(names: Sequence[str | None]) -> list[int]:
    band_names = [str(name) for name in names]
    matches = (colours for colours in COLOUR_BANDS if set(colours) <= set(band_names))
    return [band_names.index(name) + 1 for name in next(matches, band_names[:1])]


def _stretch_values(pixels: np.ndarray, has_data: np.ndarray) -> np.ndarray:
    values = pixels[:, has_data]
    low, high = np.percentile(values, STRETCH) if values.size else (0.0, 1.0)
    scaled = (np.where(has_data, pixels, low) - low) / max(high - low, np.finfo("float32").tiny)
    return (255 * scaled.clip(0, 1)).astype("uint8")
