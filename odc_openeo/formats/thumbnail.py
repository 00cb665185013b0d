"""A small picture of a result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr
from PIL import Image

from odc_openeo.cube import BANDS, X, Y
from odc_openeo.formats import gtiff, netcdf
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


def write_thumbnail(assets: Sequence[Asset], folder: Path) -> Asset | None:
    """Write a thumbnail of the first file with pixels, at most 256 pixels per side; None if there is none.

    Of netCDF, the first date is shown. Red, green and blue bands are shown as such, else the first band in
    grey; no-data is transparent. Only an overview is read.
    """
    source = next((asset for asset in assets if asset.media_type in _DRAWERS), None)
    picture = None if source is None else _DRAWERS[source.media_type](source.path)
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
    return _make_picture(pixels.filled(np.nan))


def _draw_netcdf(path: Path) -> Image.Image | None:
    with xr.open_dataset(path, engine="netcdf4", decode_times=False) as dataset:
        layers = _list_layers(dataset)
        if not layers:
            return None
        indexes = [i - 1 for i in _choose_bands(list(layers))]
        pixels = [_read_layer(list(layers.values())[i]) for i in indexes]
    return _make_picture(np.stack(pixels))


def _list_layers(dataset: xr.Dataset) -> dict[str | None, xr.DataArray]:
    """The rasters of a netCDF file by the name of their band, at the first label of other dimensions."""
    layers: dict[str | None, xr.DataArray] = {}
    for name, variable in dataset.data_vars.items():
        if not {Y, X} <= set(variable.dims) or variable.dtype.kind not in "biuf" or 0 in variable.shape:
            continue
        bands = variable.coords[BANDS].values if BANDS in variable.coords and BANDS in variable.dims else None
        rest = {d: 0 for d in variable.dims if d not in (Y, X, BANDS)}
        first = variable.isel(rest)
        if bands is None:
            layers[str(name)] = first.isel({BANDS: 0}) if BANDS in first.dims else first
        else:
            layers |= {str(band): first.isel({BANDS: i}) for i, band in enumerate(bands)}
    return layers


def _read_layer(layer: xr.DataArray) -> np.ndarray:
    """The pixels of a layer, the north at the top, at most about 256 per side."""
    step = math.ceil(max(layer.sizes[Y], layer.sizes[X]) / SIDE)
    small = layer.isel({Y: slice(None, None, step), X: slice(None, None, step)}).transpose(Y, X)
    is_south_up = Y in small.coords and small.sizes[Y] > 1 and bool(small[Y][0] < small[Y][-1])
    return np.asarray(small.isel({Y: slice(None, None, -1)}) if is_south_up else small, dtype="float32")


def _make_picture(pixels: np.ndarray) -> Image.Image:
    """A picture of one or three bands; pixels that are not finite in all of them are transparent."""
    has_data = np.isfinite(pixels).all(axis=0)
    shades = _stretch_values(pixels, has_data)
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


_DRAWERS: Final[Mapping[str, Callable[[Path], Image.Image | None]]] = {
    gtiff.MEDIA_TYPE: _draw_raster,
    netcdf.MEDIA_TYPE: _draw_netcdf,
    "image/png": _shrink_picture,
    "image/jpeg": _shrink_picture,
}
"""The function that draws files of each media type."""
