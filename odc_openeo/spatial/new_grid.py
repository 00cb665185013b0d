"""The grid of a cube after resampling: reference system, resolution, extent, alignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import rasterio.warp
from affine import Affine
from odc.geo.crs import CRS, CRSError
from odc.geo.geobox import GeoBox

from odc_openeo.cube.budget import check_count
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.spatial.boxes import has_degrees
from odc_openeo.spatial.globe import Projection, get_projection, locate_grid
from odc_openeo.untrusted.reference_systems import parse_crs

MOST_PIXELS_PER_SIDE: Final = 10_000_000
"""Pixels along a side of a new grid: around the earth at four metres."""


def make_grid(grid: GeoBox, resolution: Sequence[float], crs: CRS, align: str = "upper-left") -> GeoBox:
    """A grid over the extent of another one, with a resolution (0 keeps it), a CRS and a common corner.

    Raises:
        ProcessParameterInvalid: the extent can't be expressed in the CRS.
    """
    left, bottom, right, top = _project_extent(grid, crs)
    kept = (0.0, 0.0) if all(resolution) else _get_kept_resolution(grid, crs)
    size = [float(requested or current) for requested, current in zip(resolution, kept, strict=True)]
    for length, step in zip((right - left, top - bottom), size, strict=True):
        if step > 1e6 * length and step > 1e9:
            reason = f"a pixel of {step:g} is far larger than the cube. Choose a finer resolution."
            raise ProcessParameterInvalid(process="resample_spatial", parameter="resolution", reason=reason)
        check_count(
            length / step, MOST_PIXELS_PER_SIDE, "pixels along a side", "Choose a coarser resolution."
        )
    columns, rows = (
        max(1, int(np.ceil(length / step - 1e-6)))
        for length, step in zip((right - left, top - bottom), size, strict=True)
    )
    x = left if align.endswith("left") else right - columns * size[0]
    y = top if align.startswith("upper") else bottom + rows * size[1]
    target = GeoBox((rows, columns), Affine(size[0], 0, x, 0, -size[1], y), crs)
    return target.flipy() if grid.transform.e > 0 else target


def _project_extent(grid: GeoBox, crs: CRS) -> tuple[float, float, float, float]:
    box = grid.boundingbox.bbox
    if crs == grid.crs:
        return box
    target = get_projection(crs)
    if has_degrees(str(crs)):
        bounds = locate_grid(grid).bounds if not locate_grid(grid).is_empty else (np.nan,) * 4
    else:
        try:
            box = _turn_to_map(box, target) if has_degrees(str(grid.crs)) else box
            bounds = rasterio.warp.transform_bounds(grid.crs.to_wkt(), crs.to_wkt(), *box, densify_pts=51)
        except rasterio.errors.RasterioError:
            bounds = (np.nan,) * 4
    if not np.isfinite(bounds).all() or bounds[0] >= bounds[2] or bounds[1] >= bounds[3]:
        reason = "the extent of the cube can't be expressed in it. Filter the cube or choose another one."
        raise ProcessParameterInvalid(process="resample_spatial", parameter="projection", reason=reason)
    return bounds


def _turn_to_map(
    box: tuple[float, float, float, float], target: Projection
) -> tuple[float, float, float, float]:
    """A box in degrees with longitudes that a map shows from its left to its right."""
    west, south, east, north = box
    if not target.width or target.middle is None:
        return box
    middle, rim = target.middle, 1e-9
    if east - west >= 360 - 1e-6:
        return middle - 180 + rim, south, middle + 180 - rim, north
    turn = 360 * round(((west + east) / 2 - middle) / 360)
    return west - turn, south, east - turn, north


def _get_kept_resolution(grid: GeoBox, crs: CRS) -> tuple[float, float]:
    current = abs(grid.resolution.x), abs(grid.resolution.y)
    if crs == grid.crs or crs.units == grid.crs.units:
        return current
    # As GDAL does: as many pixels along the diagonal. Its own function needs a driver that is closed here.
    left, bottom, right, top = grid.boundingbox.bbox
    try:
        xs, ys = rasterio.warp.transform(grid.crs.to_wkt(), crs.to_wkt(), [left, right], [top, bottom])
    except rasterio.errors.RasterioError:
        xs, ys = [np.nan, np.nan], [np.nan, np.nan]
    size = float(np.hypot(xs[1] - xs[0], ys[1] - ys[0]) / np.hypot(grid.shape.x, grid.shape.y))
    if not (np.isfinite(size) and size > 0):
        reason = "pixels of a comparable size can't be found in it. Give 'resolution' or choose another one."
        raise ProcessParameterInvalid(process="resample_spatial", parameter="projection", reason=reason)
    return size, size


def get_reference_system(grid: GeoBox, projection: int | str | None) -> CRS:
    """The reference system of a projection, by default that of the grid."""
    if projection is None:
        return grid.crs
    try:
        return CRS(parse_crs(projection))
    except (CRSError, ValueError) as error:
        reason = f"{str(projection)[:60]!r} is not a known reference system. Give an EPSG code or WKT2."
        raise ProcessParameterInvalid(
            process="resample_spatial", parameter="projection", reason=reason
        ) from error
