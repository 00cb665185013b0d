"""Mask the pixels of a cube that geometries do not cover, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from odc_openeo import cube
from odc_openeo.errors import NoDataAvailable, ProcessParameterInvalid
from odc_openeo.spatial import rasterize, reproject, vector_cubes
from odc_openeo.spatial.features import with_features
from odc_openeo.spatial.turned_cubes import turn_cube_to


def clip_to_geometries(data: xr.DataArray, geometries: Any, process: str, parameter: str) -> xr.DataArray:
    """Crop a cube to the bounding box of geometries and make the pixels outside of all of them no-data.

    Args:
        data: A raster cube with the dimensions ``y`` and ``x``.
        geometries: A vector cube or GeoJSON, in any reference system.
        process: The process, for error messages.
        parameter: Its parameter, for error messages.

    Raises:
        NoDataAvailable: no pixel is in the geometries.
    """
    frame = vector_cubes.read_geometries(geometries, process, parameter)
    turned = _turn_to_geometries(data, frame, process, parameter)
    return with_features(clip_to_frame(turned, frame, process), frame)


def clip_to_frame(data: xr.DataArray, frame: gpd.GeoDataFrame, process: str) -> xr.DataArray:
    """Crop and mask a cube as `clip_to_geometries` does, to the geometries of a frame."""
    grid = rasterize.get_grid(data, process)
    shapes = reproject.project_to_grid(frame, grid)
    windows = _find_windows(frame, grid)
    if not windows:
        raise NoDataAvailable(reason=f"no pixel of the cube is in the geometries of {process}.")
    rows, columns = (
        slice(min(w[axis].start for w in windows), max(w[axis].stop for w in windows)) for axis in (0, 1)
    )
    cropped = data.isel({cube.Y: rows, cube.X: columns})
    return keep_where(cropped, mask_inside(cropped, shapes, grid[rows, columns]))


def _turn_to_geometries(
    data: xr.DataArray, frame: gpd.GeoDataFrame, process: str, parameter: str
) -> xr.DataArray:
    """The cube with longitudes as geometries count them."""
    rasterize.get_grid(data, process)
    bounds = shapely.total_bounds(frame.geometry.to_numpy())
    if frame.crs is None or not np.isfinite(bounds).all():
        return data
    if frame.crs.is_geographic:
        area = Geometry(shapely.box(*bounds), CRS(frame.crs))
    else:
        area = Geometry(shapely.union_all(shapely.envelope(frame.geometry.to_numpy())), CRS(frame.crs))
    return turn_cube_to(data, area, process, parameter)


def _find_windows(frame: gpd.GeoDataFrame, grid: GeoBox) -> list[rasterize.Window]:
    """The parts of a grid within the bounding boxes of geometries."""
    shapes = frame.geometry.to_numpy()
    areas = shapely.get_dimensions(shapes) == 2
    bounds = reproject.project_bounds(shapes, frame.crs, grid)
    bounded = ~np.isnan(bounds).any(axis=1)
    windows = (
        rasterize.find_window_of_bounds(b, a, grid)
        for b, a in zip(bounds[bounded], areas[bounded], strict=True)
    )
    return [window for window in windows if window is not None]


def mask_inside(data: xr.DataArray, shapes: np.ndarray, grid: GeoBox) -> xr.DataArray:
    """Whether each pixel of a grid is in any of the shapes; lazy, in the cube's chunks, if the cube is."""
    coords = {d: data.coords[d] for d in (cube.Y, cube.X)}
    nonempty = shapes[~shapely.is_empty(shapes)]
    if isinstance(data.data, da.Array):
        sizes = [data.chunksizes[d] for d in (cube.Y, cube.X)]
        rows = [
            [_burn_chunk(nonempty, grid, r, c) for c in chunk_slices(sizes[1])]
            for r in chunk_slices(sizes[0])
        ]
        values: Any = da.block(rows)
    else:
        values = _burn_shapes(nonempty, grid)
    return xr.DataArray(values, dims=(cube.Y, cube.X), coords=coords)


def chunk_slices(chunks: tuple[int, ...]) -> Iterator[slice]:
    ends = np.cumsum(chunks)
    return (slice(int(end - size), int(end)) for size, end in zip(chunks, ends, strict=True))


def _burn_chunk(shapes: np.ndarray, grid: GeoBox, rows: slice, columns: slice) -> da.Array:
    part = grid[rows, columns]
    margin = 2 * max(abs(part.resolution.x), abs(part.resolution.y))
    left, bottom, right, top = part.boundingbox.bbox
    extent = shapely.box(left - margin, bottom - margin, right + margin, top + margin)
    near = shapes[shapely.intersects(shapes, extent)]
    if not len(near) or shapely.covers(near, extent).any():
        return da.full(part.shape.yx, bool(len(near)), dtype=bool, chunks=-1)
    near = shapely.intersection(near, extent)
    chunks = tuple((n,) for n in part.shape.yx)
    return da.map_blocks(partial(_burn_block, near, part), chunks=chunks, dtype=bool)


def _burn_block(shapes: np.ndarray, grid: GeoBox, block_info: Any = None) -> np.ndarray:
    return _burn_shapes(shapes, grid)


def _burn_shapes(shapes: np.ndarray, grid: GeoBox) -> np.ndarray:
    result = np.zeros(grid.shape.yx, dtype=bool)
    for shape in shapes:
        part = rasterize.find_window(shape, grid)
        if part is not None:
            result[part] |= rasterize.mask_pixels(shape, grid[part])
    return result


def keep_where(data: xr.DataArray, keep: xr.DataArray, replacement: Any = None) -> xr.DataArray:
    """Keep the values where ``keep`` is true; elsewhere write the replacement (no-data by default)."""
    keep = keep.drop_vars([c for c in keep.coords if c not in keep.dims])
    if replacement is not None:
        return _write_replacement(data, keep | ~cube.valid(data), replacement)
    missing = cube.nodata(data)
    if missing is None:
        if not isinstance(keep.data, da.Array) and bool(keep.all()):
            return data
        data, missing = cube.decode(data), np.nan
    filled = data.where(keep, missing).astype(data.dtype, copy=False)
    return filled.transpose(*data.dims).assign_attrs(data.attrs)


def _write_replacement(data: xr.DataArray, keep: xr.DataArray, replacement: Any) -> xr.DataArray:
    if isinstance(replacement, str):
        reason = "a string can't be written into a raster cube. Give a number or null."
        raise ProcessParameterInvalid(process="mask_polygon", parameter="replacement", reason=reason)
    value = int(replacement) if isinstance(replacement, bool) and data.dtype != bool else replacement
    fits = data.dtype.kind in "fc" or _is_representable(value, data.dtype)
    values = data if fits else cube.decode(data)
    return values.where(keep, value).astype(values.dtype, copy=False).transpose(*data.dims)


def _is_representable(value: Any, dtype: np.dtype) -> bool:
    if dtype.kind == "b":
        return isinstance(value, bool)
    if not np.isfinite(value) or value != int(value):
        return False
    return bool(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)
