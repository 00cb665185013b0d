"""Resample raster cubes to other grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final

import numpy as np
import rasterio.warp
from affine import Affine
from odc.geo.crs import CRS, CRSError
from odc.geo.geobox import GeoBox

from odc_openeo import rasterize
from odc_openeo.budget import check_count
from odc_openeo.demand import Demand, Grid
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.process import Schema, process
from odc_openeo.processes.geometry_schemas import Corner
from odc_openeo.processes.schemas import EPSG, WKT2, SpatialCube
from odc_openeo.user_crs import parse_crs
from odc_openeo.warp import METHODS, warp

Method = Annotated[str, Schema({"type": "string", "enum": sorted(METHODS)})]
Resolution = Annotated[
    float | Sequence[float],
    Schema(
        [
            {"description": "For both axes.", "type": "number", "minimum": 0},
            {
                "description": "For x and y.",
                "type": "array",
                "minItems": 2,
                "maxItems": 2,
                "items": {"type": "number", "minimum": 0},
            },
        ]
    ),
]
MOST_PIXELS: Final = 10_000_000
"""Pixels along a side of a new grid: the earth around at four metres."""

Projection = Annotated[
    int | str | None, Schema([EPSG, WKT2, {"title": "Don't change projection", "type": "null"}])
]


def _needs(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    # The new grid is counted from a corner of the data, so that no part of it can be left out.
    needed = demand.everywhere()
    wanted = [arguments.get(n, d) for n, d in (("resolution", 0), ("projection", None), ("method", "near"))]
    resolution, projection, method = wanted
    if isinstance(resolution, int | float):
        resolution = [resolution] * 2
    align = arguments.get("align", "upper-left")
    known = isinstance(resolution, list) and isinstance(projection, int | str | None)
    if not known or method != "near" or not isinstance(align, str):
        return {"data": needed}
    return {"data": replace(needed, grid=Grid("", tuple(resolution), projection, align))}


@process(categories=["cubes", "reproject"], needs=_needs)
def resample_spatial(
    data: SpatialCube,
    resolution: Resolution = 0,
    projection: Projection = None,
    method: Method = "near",
    align: Corner = "upper-left",
) -> SpatialCube:
    """Change the resolution or the reference system of a raster cube.

    The new grid has a corner in a corner of the (reprojected) extent of the cube and covers all of it. If
    nothing changes, the cube is returned as it is. Without a resolution, the number is kept where the units
    of both reference systems are the same, and otherwise chosen so that the diagonal keeps its count of
    pixels.
    Methods that select pixels (near, mode, min, max, med, q1, q3) keep integers and their no-data value; the
    others give floats.

    Args:
        data: A raster cube.
        resolution: Size of the new pixels in the units of the target reference system; 0 keeps it.
        projection: The target reference system as EPSG code or WKT2; null keeps it.
        method: How to make new pixels of old ones, as in gdalwarp.
        align: The corner in which old and new extent meet exactly.

    Returns:
        The cube on the new grid; other dimensions stay.
    """
    grid = rasterize.grid_of(data, "resample_spatial")
    wanted = [resolution] * 2 if isinstance(resolution, int | float) else list(resolution)
    if projection is None and not any(wanted):
        reason = "give a resolution or a projection."
        raise ProcessParameterInvalid(process="resample_spatial", parameter="resolution", reason=reason)
    target = new_grid(grid, wanted, reference_system(grid, projection), align)
    return warp(data, grid, target, method)


def _needs_of_target(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    return {"data": demand.everywhere()}


@process(categories=["cubes", "reproject"], needs=_needs_of_target)
def resample_cube_spatial(data: SpatialCube, target: SpatialCube, method: Method = "near") -> SpatialCube:
    """Put a raster cube on the pixel grid of another one.

    The result has the labels of ``target`` along x and y, with no-data where ``data`` has nothing. A cube
    that is on that grid already is returned as it is. Methods that select pixels (near, mode, min, max, med,
    q1, q3) keep integers and their no-data value; the others give floats.

    Args:
        data: A raster cube.
        target: A raster cube that has the wanted grid.
        method: How to make new pixels of old ones, as in gdalwarp.

    Returns:
        The cube on the grid of the target; other dimensions stay.
    """
    grid = rasterize.grid_of(data, "resample_cube_spatial")
    wanted = rasterize.grid_of(target, "resample_cube_spatial", "target")
    return warp(data, grid, wanted, method)


def new_grid(grid: GeoBox, resolution: Sequence[float], crs: CRS, align: str = "upper-left") -> GeoBox:
    """The grid over the extent of another one: of a resolution (0 keeps it), in a CRS, met in a corner.

    Raises:
        ProcessParameterInvalid: the extent can't be expressed in the CRS.
    """
    left, bottom, right, top = _extent(grid, crs)
    kept = _kept_resolution(grid, crs)
    size = [float(given or own) for given, own in zip(resolution, kept, strict=True)]
    for length, step in zip((right - left, top - bottom), size, strict=True):
        if step > 1e6 * length and step > 1e9:
            reason = f"a pixel of {step:g} is far larger than the cube. Choose a finer resolution."
            raise ProcessParameterInvalid(process="resample_spatial", parameter="resolution", reason=reason)
        check_count(length / step, MOST_PIXELS, "pixels along a side", "Choose a coarser resolution.")
    columns, rows = (
        max(1, int(np.ceil(length / step - 1e-6)))
        for length, step in zip((right - left, top - bottom), size, strict=True)
    )
    x = left if align.endswith("left") else right - columns * size[0]
    y = top if align.startswith("upper") else bottom + rows * size[1]
    found = GeoBox((rows, columns), Affine(size[0], 0, x, 0, -size[1], y), crs)
    return found.flipy() if grid.transform.e > 0 else found


def _extent(grid: GeoBox, crs: CRS) -> tuple[float, float, float, float]:
    box = grid.boundingbox.bbox
    if crs == grid.crs:
        return box
    try:
        found = rasterio.warp.transform_bounds(grid.crs.to_wkt(), crs.to_wkt(), *box, densify_pts=51)
    except rasterio.errors.RasterioError:
        found = (np.nan,) * 4
    if not np.isfinite(found).all() or found[0] >= found[2] or found[1] >= found[3]:
        reason = "the extent of the cube can't be expressed in it. Filter the cube or choose another one."
        raise ProcessParameterInvalid(process="resample_spatial", parameter="projection", reason=reason)
    return found


def _kept_resolution(grid: GeoBox, crs: CRS) -> tuple[float, float]:
    own = abs(grid.resolution.x), abs(grid.resolution.y)
    if crs == grid.crs or crs.units == grid.crs.units:
        return own
    try:
        transform, _, _ = rasterio.warp.calculate_default_transform(
            grid.crs.to_wkt(), crs.to_wkt(), grid.shape.x, grid.shape.y, *grid.boundingbox.bbox
        )
    except (rasterio.errors.RasterioError, SystemError) as error:
        reason = "pixels of a comparable size can't be found in it. Give 'resolution' or choose another one."
        raise ProcessParameterInvalid(
            process="resample_spatial", parameter="projection", reason=reason
        ) from error
    return abs(transform.a), abs(transform.e)


def reference_system(grid: GeoBox, projection: int | str | None) -> CRS:
    """The reference system that a projection names, that of the grid if there is none."""
    if projection is None:
        return grid.crs
    try:
        return CRS(parse_crs(projection))
    except (CRSError, ValueError) as error:
        reason = f"{projection!r} is not a known reference system. Give an EPSG code or WKT2."
        raise ProcessParameterInvalid(
            process="resample_spatial", parameter="projection", reason=reason
        ) from error
