"""Slope and aspect of elevation models."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr

from odc_openeo import cube, rasterize
from odc_openeo.demand import around
from odc_openeo.process import process
from odc_openeo.processes.children import restored
from odc_openeo.processes.kernels import padded
from odc_openeo.processes.schemas import SpatialCube

_METRES_PER_DEGREE: Final = np.pi / 180 * 6_371_000.0


@process(categories=["cubes", "terrain"], experimental=True, needs=around(1))
def slope(data: SpatialCube) -> SpatialCube:
    """Steepness of an elevation model.

    By Horn's method from the eight neighbours of each pixel; no-data at the borders and beside no-data. In a
    geographic reference system, degrees are turned into metres at the latitude of each row.

    Args:
        data: Elevations in metres.

    Returns:
        Degrees, 0 for level ground; the same dimensions.
    """
    east, north = _gradient(data, "slope")
    steepness = xr.apply_ufunc(
        lambda e, n: np.rad2deg(np.arctan(np.hypot(e, n))), east, north, dask="allowed"
    )
    return _like(steepness, data)


@process(categories=["cubes", "terrain"], experimental=True, needs=around(1))
def aspect(data: SpatialCube) -> SpatialCube:
    """The direction in which an elevation model descends most steeply.

    By Horn's method from the eight neighbours of each pixel; no-data at the borders and beside no-data.

    Args:
        data: Elevations in metres.

    Returns:
        Degrees clockwise from north (0 to 360), no-data on level ground; the same dimensions.
    """
    east, north = _gradient(data, "aspect")
    angle = xr.apply_ufunc(lambda e, n: np.rad2deg(np.arctan2(-e, -n)) % 360, east, north, dask="allowed")
    return _like(angle.where((east != 0) | (north != 0)), data)


def _gradient(data: xr.DataArray, process: str) -> tuple[xr.DataArray, xr.DataArray]:
    """Rise per metre towards the east and towards the north."""
    grid = rasterize.grid_of(data, process)
    heights = cube.decode(data).astype(float).drop_vars([cube.X, cube.Y, "spatial_ref"], errors="ignore")
    wide = padded(heights, {cube.Y: (1, 1), cube.X: (1, 1)})
    rows, columns = data.sizes[cube.Y], data.sizes[cube.X]

    def shifted(down: int, right: int) -> xr.DataArray:
        part = {cube.Y: slice(1 + down, 1 + down + rows), cube.X: slice(1 + right, 1 + right + columns)}
        return wide.isel(part)

    def rise(first: tuple[int, int], second: tuple[int, int]) -> xr.DataArray:
        return shifted(*second) - shifted(*first)

    to_right = rise((-1, -1), (-1, 1)) + 2 * rise((0, -1), (0, 1)) + rise((1, -1), (1, 1))
    downwards = rise((-1, -1), (1, -1)) + 2 * rise((-1, 0), (1, 0)) + rise((-1, 1), (1, 1))
    width: float | xr.DataArray = grid.transform.a
    height = grid.transform.e
    if grid.crs.geographic:
        cosine = np.cos(np.deg2rad(data.coords[cube.Y].values))
        width = xr.DataArray(width * _METRES_PER_DEGREE * cosine, dims=cube.Y)
        height *= _METRES_PER_DEGREE
    return to_right / (8 * width), downwards / (8 * height)


def _like(values: xr.DataArray, data: xr.DataArray) -> xr.DataArray:
    return restored(values.transpose(*data.dims), data)
