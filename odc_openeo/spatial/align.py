"""Align the horizontal grid of one cube with that of another, so that their labels can be compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from odc_openeo import cube
from odc_openeo.cube import SPATIAL_REF, X, Y
from odc_openeo.errors import IncompatibleDataCubes
from odc_openeo.spatial.boxes import has_degrees
from odc_openeo.spatial.rasterize import get_grid
from odc_openeo.spatial.warp import Window, warp

_TOLERANCE = 1e-3  # of a pixel

C = TypeVar("C", bound=xr.DataArray | xr.Dataset)


FindWindow = Callable[[GeoBox], Window | None]
"""Finds the rows and columns of a grid that will be computed; None for all."""


def align_to_grid_of(
    target: xr.DataArray, data: xr.DataArray, find_window: FindWindow | None = None
) -> xr.DataArray:
    """Put a cube on the grid of ``target``.

    If its pixels coincide with those of that grid (extended beyond the target), its labels become exactly
    the same numbers and no value changes. Otherwise it is resampled to the target's pixels with
    `resample_cube_spatial` and its default method. Cubes without x and y are returned as they are.

    Raises:
        IncompatibleDataCubes: a cube lacks a reference system or a regular grid, so nothing can be aligned.
    """
    axes = [d for d in (Y, X) if d in data.dims and d in target.dims]
    if all(data[d].equals(target[d]) for d in axes) and _is_same_crs(data, target, lenient=True):
        return data
    if _is_same_crs(data, target, lenient=False) and not _counts_elsewhere(data, target):
        snapped = {d: _snap_labels(data, target, d) for d in axes}
        if all(labels is not None for labels in snapped.values()):
            return data.assign_coords({d: (d, labels, data[d].attrs) for d, labels in snapped.items()})
    return _resample_to_target(target, data, find_window)


def _is_same_crs(one: xr.DataArray, other: xr.DataArray, lenient: bool) -> bool:
    a, b = one.odc.crs, other.odc.crs
    return a == b or (lenient and (a is None or b is None))


def _counts_elsewhere(data: xr.DataArray, target: xr.DataArray) -> bool:
    """Whether some longitudes of a cube in degrees are those of the target only a circle further on."""
    if X not in data.dims or X not in target.dims or not data.sizes[X] or not target.sizes[X]:
        return False
    if data.odc.crs is None or not has_degrees(str(data.odc.crs)):
        return False
    labels, grid = data[X].values, target[X].values
    outside = labels[(labels < grid.min()) | (labels > grid.max())]
    beyond = (outside - grid.min()) % 360 <= np.ptp(grid)
    return bool(beyond.any())


def _snap_labels(data: xr.DataArray, target: xr.DataArray, dimension: str) -> np.ndarray | None:
    """The labels of ``data`` as the exact numbers of the target's grid, None if they are off that grid."""
    labels, grid = data[dimension].values, target[dimension].values
    if not labels.size or not grid.size:
        return labels
    target_step, data_step = find_resolution(target, dimension), find_resolution(data, dimension)
    if target_step is None or data_step is None:
        return labels if np.isin(labels, grid).all() else None
    cells = (labels - grid[0]) / target_step
    nearest = np.round(cells).astype(int)
    if abs(abs(data_step / target_step) - 1) > _TOLERANCE or np.abs(cells - nearest).max() > _TOLERANCE:
        return None
    inside = (nearest >= 0) & (nearest < grid.size)
    exact = grid[np.clip(nearest, 0, grid.size - 1)]
    return np.where(inside, exact, grid[0] + nearest * target_step)


def find_resolution(data: cube.Cube, dimension: str) -> float | None:
    """The signed step between labels of x or y; None if there is a single label and no other source."""
    labels = data[dimension].values
    if labels.size > 1:
        return float(labels[-1] - labels[0]) / (labels.size - 1)
    declared = data[dimension].attrs.get("resolution")
    if declared is not None:
        return float(declared)
    box = data.odc.geobox
    return None if box is None else float(box.resolution.x if dimension == X else box.resolution.y)


def _resample_to_target(
    target: xr.DataArray, data: xr.DataArray, find_window: FindWindow | None
) -> xr.DataArray:
    whole = cube.has_raster_dimensions(data) and cube.has_raster_dimensions(target)
    if not whole or any(c.odc.crs is None or c.odc.geobox is None for c in (data, target)):
        reason = (
            "their x and y labels differ and they can't be aligned without a regular grid and a "
            "reference system in both. Put them on one grid, e.g. with 'resample_cube_spatial'."
        )
        raise IncompatibleDataCubes(reason=reason)
    process = "resample_cube_spatial"
    grid = get_grid(target, process, "target")
    window = None if find_window is None else find_window(grid)
    resampled = warp(data, get_grid(data, process), grid, "near", window)
    return resampled.assign_coords({d: target[d] for d in (Y, X)})


def update_transform(data: C) -> C:
    """Update the transform that is recorded with the CRS after x or y have changed."""
    if SPATIAL_REF not in data.coords or not cube.has_raster_dimensions(data):
        return data
    box = data.odc.geobox if data.sizes[X] and data.sizes[Y] else None
    if box is None:
        return data
    transform = xr_coords(box)[SPATIAL_REF].attrs["GeoTransform"]
    reference = data.coords[SPATIAL_REF].copy()
    reference.attrs = {**reference.attrs, "GeoTransform": transform}
    return cast(C, data.assign_coords({SPATIAL_REF: reference}))
