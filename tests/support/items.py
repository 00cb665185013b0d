"""STAC Items of small GeoTIFFs, and cubes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import xarray as xr
from affine import Affine
from rasterio.enums import ColorInterp

from odc_openeo.load import load
from odc_openeo.load.stac_scenes import read_items
from odc_openeo.untrusted.rasters import LocalFolder

GEOTIFF = "image/tiff; application=geotiff"
ORIGIN = (600_000, 5_200_000)
PIXELS = np.arange(1, 101, dtype="uint16").reshape(10, 10)


def write_raster(
    path: Path,
    pixels: np.ndarray,
    nodata: float | None = None,
    *,
    size: float = 10,
    origin: tuple[float, float] = ORIGIN,
    mask: np.ndarray | None = None,
    alpha: bool = False,
    descriptions: Sequence[str] = (),
    crs: str = "EPSG:32632",
    **profile: Any,
) -> Path:
    """Write a GeoTIFF; ``alpha`` says whether its last band is one, ``mask`` is an internal mask."""
    bands = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    count, height, width = bands.shape
    transform = Affine(size, 0, origin[0], 0, -size, origin[1])
    shape = {"count": count, "height": height, "width": width, "dtype": bands.dtype, "crs": crs}
    options = {"driver": "GTiff", "photometric": "MINISBLACK", "transform": transform, **shape, **profile}
    if alpha:
        options["ALPHA"] = "YES"
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", nodata=nodata, **options) as file,
    ):
        file.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (count - 1)
        if alpha:
            file.colorinterp = [*file.colorinterp[:-1], ColorInterp.alpha]
        file.write(bands)
        if mask is not None:
            file.write_mask(mask)
        if descriptions:
            file.descriptions = descriptions
    return path


def make_asset(path: Path, *names: str, **fields: Any) -> dict[str, Any]:
    """An asset; ``names`` are those that it declares for its bands."""
    bands = {"eo:bands": [{"name": name} for name in names]} if names else {}
    return {"href": str(path), "type": GEOTIFF, "roles": ["data"], **bands, **fields}


def make_item(day: int, assets: Mapping[str, Path | Mapping[str, Any]], **properties: Any) -> dict[str, Any]:
    """An Item of a day of March 2024."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"scene-{day}",
        "geometry": None,
        "properties": {"datetime": f"2024-03-{day:02}T10:00:00Z", **properties},
        "assets": {key: make_asset(a) if isinstance(a, Path) else a for key, a in assets.items()},
    }


def load_items(folder: Path, *items: Mapping[str, Any], bands: Sequence[str] | None = None) -> xr.DataArray:
    """The lazy cube of Items whose files are in a folder."""
    metadata, scenes = read_items(items, LocalFolder(folder), bands)
    return load(scenes, metadata)


def list_bands(data: xr.DataArray) -> list[str]:
    """The labels of the bands."""
    return [str(label) for label in data.coords["bands"].values]
