"""Small raster cubes on real grids, eager and in dask chunks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

UTM = "EPSG:32632"


def grid(
    rows: int,
    columns: int,
    size: float = 10.0,
    left: float = 680000.0,
    top: float = 5152000.0,
    crs: str = UTM,
) -> GeoBox:
    """A north-up grid with square pixels."""
    return GeoBox((rows, columns), Affine(size, 0, left, 0, -size, top), crs)


def raster(values: np.ndarray, geobox: GeoBox, chunks: Any = None, nodata: Any = None) -> xr.DataArray:
    """A cube of ``(y, x)``, ``(t, y, x)`` or ``(t, bands, y, x)`` values; lazy if ``chunks`` is given."""
    names = ("t", "bands", "y", "x") if values.ndim == 4 else ("t", "y", "x")[-values.ndim :]
    coords: dict[str, Any] = dict(xr_coords(geobox, crs_coord_name="spatial_ref", always_yx=True))
    if "t" in names:
        start = np.datetime64("2022-06-01", "ns")
        coords["t"] = start + np.arange(values.shape[0]) * np.timedelta64(5, "D")
    if "bands" in names:
        coords["bands"] = [f"B{i + 1:02}" for i in range(values.shape[1])]
    cube = xr.DataArray(values, dims=names, coords=coords)
    if nodata is not None:
        cube.attrs["nodata"] = nodata
    return cube if chunks is None else cube.chunk(chunks)


@contextmanager
def nothing_computes() -> Iterator[None]:
    """Fails if dask computes anything inside."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("dask computed something")

    with dask.config.set(scheduler=refuse):
        yield
