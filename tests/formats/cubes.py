"""Cubes for the tests of formats."""

from __future__ import annotations

from typing import Any

import dask
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

ORIGIN = (600000.0, 5100000.0)


def raster(
    dtype: str = "float32",
    dates: int | None = 2,
    bands: int | None = 3,
    shape: tuple[int, int] = (40, 30),
    crs: str = "EPSG:32632",
) -> xr.DataArray:
    """A cube t, bands, y, x of 10 m pixels whose values all differ from their neighbours."""
    height, width = shape
    west, north = ORIGIN
    geobox = GeoBox.from_bbox((west, north - 10 * height, west + 10 * width, north), crs, resolution=10)
    dims, sizes, coords = [], [], dict(xr_coords(geobox, dims=("y", "x")))
    if dates is not None:
        dims, sizes = ["t"], [dates]
        coords["t"] = pd.date_range("2022-06-01T10:00:00", periods=dates, freq="5D")
    if bands is not None:
        dims, sizes = [*dims, "bands"], [*sizes, bands]
        coords["bands"] = [f"B{i:02}" for i in range(1, bands + 1)]
    numbers = np.random.default_rng(7).normal(100, 30, [*sizes, height, width])
    return xr.DataArray(numbers.astype(dtype), dims=[*dims, "y", "x"], coords=coords, name=None)


def vector(dates: int | None = 2, bands: int | None = 2, crs: Any = 4326) -> xr.DataArray:
    """A cube geometry, t, bands of three boxes with a property ``field``; the first value is no-data."""
    shapes = [shapely.box(i, 50 + i, i + 0.5, 50.5 + i) for i in range(3)]
    if crs not in (None, 4326):
        shapes = list(gpd.GeoSeries(shapes, crs=4326).to_crs(crs))
    dims, sizes, coords = ["geometry"], [3], {"field": ("geometry", ["a", "b", "c"])}
    if dates is not None:
        dims, sizes = [*dims, "t"], [*sizes, dates]
        coords["t"] = pd.date_range("2022-06-01", periods=dates)
    if bands is not None:
        dims, sizes = [*dims, "bands"], [*sizes, bands]
        coords["bands"] = [f"B{i:02}" for i in range(1, bands + 1)]
    values = np.arange(float(np.prod(sizes))).reshape(sizes)
    values.flat[0] = np.nan
    cube = xr.DataArray(values, dims=dims, coords={"geometry": shapes, **coords})
    return cube.xvec.set_geom_indexes("geometry", crs=crs)


def no_compute(*args: Any, **kwargs: Any) -> Any:
    """A scheduler for what must stay lazy."""
    raise AssertionError("dask computed")


def lazy(check: Any) -> Any:
    """The value of a function that must not compute."""
    with dask.config.set(scheduler=no_compute):
        return check()
