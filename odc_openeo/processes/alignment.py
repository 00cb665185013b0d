"""Bringing the horizontal grid of one cube onto that of another, so that their labels can be compared."""

from __future__ import annotations

from typing import TypeVar, cast

import numpy as np
import xarray as xr
from odc.geo.xr import xr_coords

from odc_openeo import cube
from odc_openeo.cube import X, Y
from odc_openeo.errors import IncompatibleDataCubes
from odc_openeo.processes.resampling import resample_cube_spatial

SPATIAL_REF = "spatial_ref"
_TOLERANCE = 1e-3  # of a pixel

C = TypeVar("C", bound=xr.DataArray | xr.Dataset)


def on_grid_of(target: xr.DataArray, data: xr.DataArray) -> xr.DataArray:
    """The cube with its x and y labels on the grid of ``target``.

    If its pixels coincide with those of that grid (which is thought to go on beyond the target), labels
    are set to the very same numbers and no value changes. Otherwise it is resampled to the target's pixels
    with `resample_cube_spatial` and its default method. Cubes without x and y are returned as they are.

    Raises:
        IncompatibleDataCubes: a cube lacks a reference system or a regular grid, so nothing can be aligned.
    """
    axes = [d for d in (Y, X) if d in data.dims and d in target.dims]
    if all(data[d].equals(target[d]) for d in axes) and _same_crs(data, target, lenient=True):
        return data
    if _same_crs(data, target, lenient=False):
        snapped = {d: _snapped(data, target, d) for d in axes}
        if all(labels is not None for labels in snapped.values()):
            return data.assign_coords({d: (d, labels, data[d].attrs) for d, labels in snapped.items()})
    return _resampled(target, data)


def _same_crs(one: xr.DataArray, other: xr.DataArray, lenient: bool) -> bool:
    a, b = one.odc.crs, other.odc.crs
    return a == b or (lenient and (a is None or b is None))


def _snapped(data: xr.DataArray, target: xr.DataArray, dimension: str) -> np.ndarray | None:
    """Labels of ``data`` as the exact numbers of the target's grid, None if they lie elsewhere."""
    labels, grid = data[dimension].values, target[dimension].values
    if not labels.size or not grid.size:
        return labels
    step, own = resolution(target, dimension), resolution(data, dimension)
    if step is None or own is None:
        return labels if np.isin(labels, grid).all() else None
    cells = (labels - grid[0]) / step
    nearest = np.round(cells).astype(int)
    if abs(abs(own / step) - 1) > _TOLERANCE or np.abs(cells - nearest).max() > _TOLERANCE:
        return None
    inside = (nearest >= 0) & (nearest < grid.size)
    exact = grid[np.clip(nearest, 0, grid.size - 1)]
    return np.where(inside, exact, grid[0] + nearest * step)


def resolution(data: cube.Cube, dimension: str) -> float | None:
    """The signed step between labels of x or y; None if there is a single label and nothing else tells it."""
    labels = data[dimension].values
    if labels.size > 1:
        return float(labels[-1] - labels[0]) / (labels.size - 1)
    noted = data[dimension].attrs.get("resolution")
    if noted is not None:
        return float(noted)
    box = data.odc.geobox
    return None if box is None else float(box.resolution.x if dimension == X else box.resolution.y)


def _resampled(target: xr.DataArray, data: xr.DataArray) -> xr.DataArray:
    whole = cube.has_raster_dimensions(data) and cube.has_raster_dimensions(target)
    if not whole or any(c.odc.crs is None or c.odc.geobox is None for c in (data, target)):
        reason = (
            "their x and y labels differ and they can't be aligned without a regular grid and a "
            "reference system in both. Put them on one grid, e.g. with 'resample_cube_spatial'."
        )
        raise IncompatibleDataCubes(reason=reason)
    resampled = resample_cube_spatial(data, target)
    return resampled.assign_coords({d: target[d] for d in (Y, X)})


def with_current_transform(data: C) -> C:
    """The cube with the transform noted beside its CRS brought up to date after x or y have changed."""
    if SPATIAL_REF not in data.coords or not cube.has_raster_dimensions(data):
        return data
    box = data.odc.geobox if data.sizes[X] and data.sizes[Y] else None
    if box is None:
        return data
    noted = xr_coords(box)[SPATIAL_REF].attrs["GeoTransform"]
    reference = data.coords[SPATIAL_REF].copy()
    reference.attrs = {**reference.attrs, "GeoTransform": noted}
    return cast(C, data.assign_coords({SPATIAL_REF: reference}))
