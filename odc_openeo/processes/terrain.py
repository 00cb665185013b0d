"""Slope and aspect of elevation models."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.processes.kernels import pad_with_nodata
from odc_openeo.registry.child_results import restore_coordinates
from odc_openeo.registry.demand import with_neighbours
from odc_openeo.registry.process import process
from odc_openeo.registry.schemas import SpatialCube
from odc_openeo.spatial import rasterize

_METRES_PER_DEGREE: Final = np.pi / 180 * 6_371_000.0


@process(categories=["cubes", "terrain"], experimental=True, needs=with_neighbours(1))
def slope(data: SpatialCube) -> SpatialCube:
    """Steepness of an elevation model.

    Computed by Horn's method from the eight neighbours of each pixel; no-data at the borders and next to
    no-data. In a geographic reference system, degrees are converted to metres at the latitude of each row.

    Args:
        data: Elevations in metres.

    Returns:
        A cube with the slope in degrees, 0 for level ground, and the same dimensions.
    """
    east, north = _compute_gradient(data, "slope")
    steepness = xr.apply_ufunc(
        lambda e, n: np.rad2deg(np.arctan(np.hypot(e, n))), east, north, dask="allowed"
    )
    return _restore_like(steepness, data)


@process(categories=["cubes", "terrain"], experimental=True, needs=with_neighbours(1))
def aspect(data: SpatialCube) -> SpatialCube:
    """Direction of the steepest descent of an elevation model.

    Computed by Horn's method from the eight neighbours of each pixel; no-data at the borders and next to
    no-data.

    Args:
        data: Elevations in metres.

    Returns:
        A cube with the aspect in degrees clockwise from north (0 to 360), no-data on level ground, and the
        same dimensions.
    """
    east, north = _compute_gradient(data, "aspect")
    angle = xr.apply_ufunc(lambda e, n: np.rad2deg(np.arctan2(-e, -n)) % 360, east, north, dask="allowed")
    return _restore_like(angle.where((east != 0) | (north != 0)), data)


def _compute_gradient(data: xr.DataArray, process: str) -> tuple[xr.DataArray, xr.DataArray]:
    """Compute the rise per metre towards the east and towards the north."""
    grid = rasterize.get_grid(data, process)
    heights = cube.decode(data).astype(float).drop_vars([cube.X, cube.Y, "spatial_ref"], errors="ignore")
    surrounded = pad_with_nodata(heights, {cube.Y: (1, 1), cube.X: (1, 1)})
    rows, columns = data.sizes[cube.Y], data.sizes[cube.X]

    def get_neighbors(down: int, right: int) -> xr.DataArray:
        part = {cube.Y: slice(1 + down, 1 + down + rows), cube.X: slice(1 + right, 1 + right + columns)}
        return surrounded.isel(part)

    def compute_rise(first: tuple[int, int], second: tuple[int, int]) -> xr.DataArray:
        return get_neighbors(*second) - get_neighbors(*first)

    to_right = (
        compute_rise((-1, -1), (-1, 1)) + 2 * compute_rise((0, -1), (0, 1)) + compute_rise((1, -1), (1, 1))
    )
    downwards = (
        compute_rise((-1, -1), (1, -1)) + 2 * compute_rise((-1, 0), (1, 0)) + compute_rise((-1, 1), (1, 1))
    )
    width: float | xr.DataArray = grid.transform.a
    height = grid.transform.e
    if grid.crs.geographic:
        cosine = np.cos(np.deg2rad(data.coords[cube.Y].values))
        width = xr.DataArray(width * _METRES_PER_DEGREE * cosine, dims=cube.Y)
        height *= _METRES_PER_DEGREE
    return to_right / (8 * width), downwards / (8 * height)


def _restore_like(values: xr.DataArray, data: xr.DataArray) -> xr.DataArray:
    return restore_coordinates(values.transpose(*data.dims), data)
