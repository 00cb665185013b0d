"""The pixels of a grid that belong to a geometry, by the rules of the specification.

A polygon has the pixels whose centre is inside or on the boundary, a line those it crosses, a point the one
that contains it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import rasterio.features
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox

from odc_openeo import cube
from odc_openeo.errors import ProcessParameterInvalid

Window = tuple[slice, slice]
"""Rows and columns of a grid."""

_SMALL: Final = 64 * 64
_BATCH: Final = 2**20


def get_grid(data: xr.DataArray, process: str, parameter: str = "data") -> GeoBox:
    """The pixel grid of a raster cube.

    Raises:
        ProcessParameterInvalid: it has no regular horizontal grid, or its CRS is unknown.
    """
    grid = data.odc.geobox if isinstance(data, xr.DataArray) and cube.has_raster_dimensions(data) else None
    if not isinstance(grid, GeoBox) or grid.crs is None:
        reason = "it must be a raster cube with regular dimensions x and y and a known reference system."
        raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
    return grid


def find_window(geometry: Any, grid: GeoBox) -> Window | None:
    """The smallest part of the grid that contains all pixels of a geometry, None if it has none there.

    For areas these are the pixels whose centre is in the bounding box, for lines and points those that
    touch it.
    """
    if shapely.is_empty(geometry):
        return None
    return find_window_of_bounds(shapely.bounds(geometry), bool(shapely.get_dimensions(geometry) == 2), grid)


def find_window_of_bounds(bounds: np.ndarray, area: bool, grid: GeoBox) -> Window | None:
    """The part of the grid in a bounding box (west, south, east, north), None if it is empty.

    For an ``area`` these are the pixels whose centre is in the box, else those that touch it.
    """
    west, south, east, north = bounds
    inverse = ~grid.transform
    (x0, y0), (x1, y1) = inverse @ (west, north), inverse @ (east, south)
    columns = _find_interval(min(x0, x1), max(x0, x1), grid.shape.x, area)
    rows = _find_interval(min(y0, y1), max(y0, y1), grid.shape.y, area)
    if columns is None or rows is None:
        return None
    return rows, columns


def _find_interval(low: float, high: float, size: int, centres: bool) -> slice | None:
    """Indices of the pixels (from i to i+1) whose centre is in [low, high], or that overlap it."""
    if not centres and (high < 0 or low > size):
        return None
    shift = 0.5 if centres else 0.0
    first = np.ceil(low - shift - 1e-6) if centres else np.floor(low)
    last = np.floor(high - shift + 1e-6)
    start, stop = max(int(first), 0), min(int(last) + 1, size)
    if not centres:
        start = min(start, size - 1)
        stop = max(stop, start + 1)
    return slice(start, stop) if start < stop else None


def mask_pixels(geometry: Any, grid: GeoBox) -> np.ndarray:
    """Mask of the pixels that belong to a geometry (in the grid's CRS): a boolean array of rows and columns.

    A polygon has the pixels whose centre is inside or on the boundary, a line those it crosses, a point the
    one that contains it. Parts of multi-part geometries and collections are joined.
    """
    result = np.zeros(grid.shape.yx, dtype=bool)
    parts = shapely.get_parts(shapely.get_parts(geometry))
    parts = parts[~shapely.is_empty(parts)]
    dimension = shapely.get_dimensions(parts)
    if (dimension == 2).any():
        result |= _burn_area(shapely.multipolygons(parts[dimension == 2]), grid)
    if (dimension == 1).any():
        result |= _burn_line(shapely.multilinestrings(parts[dimension == 1]), grid)
    if (dimension == 0).any():
        _burn_points(shapely.get_coordinates(parts[dimension == 0]), grid, result)
    return result


def _burn_area(area: Any, grid: GeoBox) -> np.ndarray:
    """GDAL fills the clear inside; pixels on the boundary are decided by their exact centre."""
    shape = grid.shape.yx
    burn = {"out_shape": shape, "transform": grid.transform, "dtype": "uint8"}
    inside = rasterio.features.rasterize([(area, 1)], **burn).astype(bool)
    edge = rasterio.features.rasterize([(shapely.boundary(area), 1)], all_touched=True, **burn).astype(bool)
    rows, columns = np.nonzero(edge)
    x, y = grid.transform @ (columns + 0.5, rows + 0.5)
    inside[rows, columns] = _contains_points(area, x, y, abs(grid.resolution.x))
    return inside


def _contains_points(area: Any, x: np.ndarray, y: np.ndarray, pixel: float) -> np.ndarray:
    """Whether points are in the area or on its boundary, to a millionth of a pixel."""
    shapely.prepare(area)
    inside = shapely.intersects_xy(area, x, y)
    doubtful = np.nonzero(~inside)[0]
    points = shapely.points(x[doubtful], y[doubtful])
    inside[doubtful] = shapely.dwithin(area, points, pixel * 1e-6)
    return inside


def _burn_line(line: Any, grid: GeoBox) -> np.ndarray:
    touched = rasterio.features.rasterize(
        [(line, 1)], out_shape=grid.shape.yx, transform=grid.transform, all_touched=True, dtype="uint8"
    )
    return touched.astype(bool)


def _burn_points(xy: np.ndarray, grid: GeoBox, result: np.ndarray) -> None:
    rows, columns = find_point_indices(xy, grid)
    result[rows, columns] = True


def find_point_indices(xy: np.ndarray, grid: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels that contain points ``(n, 2)``; points outside the grid are left out."""
    columns, rows = ~grid.transform @ (xy[:, 0], xy[:, 1])
    height, width = grid.shape.yx
    inside = (columns >= 0) & (columns <= width) & (rows >= 0) & (rows <= height)
    column = np.minimum(np.floor(columns[inside]), width - 1).astype(int)
    row = np.minimum(np.floor(rows[inside]), height - 1).astype(int)
    return row, column


def find_geometry_indices(geometry: Any, grid: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of all pixels of a geometry, each pixel once, row by row."""
    if shapely.is_empty(geometry):
        return np.empty(0, dtype=int), np.empty(0, dtype=int)
    if shapely.get_dimensions(geometry) == 0:
        rows, columns = find_point_indices(shapely.get_coordinates(geometry), grid)
        flat = np.unique(rows * grid.shape.x + columns)
        return flat // grid.shape.x, flat % grid.shape.x
    part = find_window(geometry, grid)
    if part is None:
        return np.empty(0, dtype=int), np.empty(0, dtype=int)
    rows, columns = np.nonzero(mask_pixels(geometry, grid[part]))
    return rows + part[0].start, columns + part[1].start


# --- Many geometries at once ---------------------------------------------------------------------


def find_all_indices(geometries: np.ndarray, grid: GeoBox) -> list[tuple[np.ndarray, np.ndarray]]:
    """`find_geometry_indices` for many geometries: small polygons are decided together, centre by centre."""
    results: list[tuple[np.ndarray, np.ndarray] | None] = [None] * len(geometries)
    areas = np.isin(shapely.get_type_id(geometries), (3, 6)) & ~shapely.is_empty(geometries)
    numbers = np.nonzero(areas)[0]
    windows = _find_windows(geometries[numbers], grid)
    size = (windows[:, 1] - windows[:, 0]) * (windows[:, 3] - windows[:, 2])
    small = np.nonzero(size <= _SMALL)[0]
    batches = np.cumsum(size[small]) // _BATCH
    for batch in np.unique(batches):
        chosen = small[batches == batch]
        batch_indices = _index_small_areas(geometries[numbers[chosen]], windows[chosen], grid)
        for number, area_indices in zip(numbers[chosen], batch_indices, strict=True):
            results[number] = area_indices
    return [
        find_geometry_indices(g, grid) if f is None else f for g, f in zip(geometries, results, strict=True)
    ]


def _find_windows(areas: np.ndarray, grid: GeoBox) -> np.ndarray:
    """First and last (exclusive) row and column of the pixels whose centre is in each bounding box."""
    bounds = shapely.bounds(areas).reshape(-1, 4)
    inverse = ~grid.transform
    x0, y0 = inverse @ (bounds[:, 0], bounds[:, 3])
    x1, y1 = inverse @ (bounds[:, 2], bounds[:, 1])
    height, width = grid.shape.yx
    limits = []
    for a, b, count in ((y0, y1, height), (x0, x1, width)):
        low, high = np.minimum(a, b), np.maximum(a, b)
        start = np.clip(np.ceil(low - 0.5 - 1e-6), 0, count)
        stop = np.clip(np.floor(high - 0.5 + 1e-6) + 1, 0, count)
        limits += [start, np.maximum(start, stop)]
    return np.stack(limits, axis=1).astype(np.int64)


def _index_small_areas(
    areas: np.ndarray, windows: np.ndarray, grid: GeoBox
) -> list[tuple[np.ndarray, np.ndarray]]:
    top, bottom, left, right = windows.T
    width = right - left
    size = (bottom - top) * width
    ends = np.cumsum(size)
    area = np.repeat(np.arange(len(areas)), size)
    within = np.arange(len(area)) - np.repeat(ends - size, size)
    rows = top[area] + within // width[area]
    columns = left[area] + within % width[area]
    x, y = grid.transform @ (columns + 0.5, rows + 0.5)
    shapely.prepare(areas)
    inside = shapely.intersects_xy(areas[area], x, y)
    outside = np.nonzero(~inside)[0]
    near = shapely.points(x[outside], y[outside])
    inside[outside] = shapely.dwithin(areas[area[outside]], near, abs(grid.resolution.x) * 1e-6)
    parts = np.cumsum(np.bincount(area[inside], minlength=len(areas)))[:-1]
    return list(zip(np.split(rows[inside], parts), np.split(columns[inside], parts), strict=True))
