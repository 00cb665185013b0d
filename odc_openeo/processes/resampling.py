"""Resample raster cubes to other grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.load.part_windows import find_part_window
from odc_openeo.registry.demand import PART_REACH, Demand, Grid
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.geometry_schemas import Corner
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import EPSG, WKT2, SpatialCube
from odc_openeo.spatial import rasterize
from odc_openeo.spatial.new_grid import get_reference_system, make_grid
from odc_openeo.spatial.warp import METHODS, warp

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
Projection = Annotated[
    int | str | None, Schema([EPSG, WKT2, {"title": "Don't change projection", "type": "null"}])
]


def _find_part(demand: Demand, method: Any) -> Demand | None:
    """The demand of a part of a job on a cube that is resampled; None if that is not known."""
    if not demand.in_part or demand.boxes is None or method == "sum":
        return None
    return demand.with_margin(PART_REACH)


def _needs_of_resampling(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    # The new grid starts at a corner of the data, so that no part of it can be left out.
    needed = _find_part(demand, arguments.get("method", "near")) or demand.at_all_places()
    options = [arguments.get(n, d) for n, d in (("resolution", 0), ("projection", None), ("method", "near"))]
    resolution, projection, method = options
    if isinstance(resolution, int | float):
        resolution = [resolution] * 2
    align = arguments.get("align", "upper-left")
    is_plain = isinstance(resolution, list) and isinstance(projection, int | str | None)
    if not is_plain or method != "near" or not isinstance(align, str):
        return {"data": needed}
    if demand.in_part:
        return {"data": needed}
    return {"data": replace(needed, grid=Grid("", tuple(resolution), projection, align))}


@process(categories=["cubes", "reproject"], needs=_needs_of_resampling, raw_values_of=("data",))
def resample_spatial(
    data: SpatialCube,
    resolution: Resolution = 0,
    projection: Projection = None,
    method: Method = "near",
    align: Corner = "upper-left",
    *,
    env: Environment | None = None,
) -> SpatialCube:
    """Change the resolution or the reference system of a raster cube.

    The new grid shares a corner with the (reprojected) extent of the cube and covers all of it. If nothing
    changes, the cube is returned as it is. Without a resolution, the current one is kept if both reference
    systems have the same units; otherwise it is chosen such that the diagonal keeps its number of pixels.
    Methods that select pixels (near, mode, min, max, med, q1, q3) keep integers and their no-data value; the
    others return floats.

    Args:
        data: A raster cube.
        resolution: The size of the new pixels in the units of the target reference system; 0 keeps it.
        projection: The target reference system as EPSG code or WKT2; null keeps it.
        method: The resampling method, named as in gdalwarp.
        align: The corner that the old and the new extent share exactly.

    Returns:
        The cube on the new grid; other dimensions stay.
    """
    grid = rasterize.get_grid(data, "resample_spatial")
    sizes = [resolution] * 2 if isinstance(resolution, int | float) else list(resolution)
    if projection is None and not any(sizes):
        reason = "give a resolution or a projection."
        raise ProcessParameterInvalid(process="resample_spatial", parameter="resolution", reason=reason)
    target = make_grid(grid, sizes, get_reference_system(grid, projection), align)
    return warp(data, grid, target, method, find_part_window(env, target))


def _needs_of_target(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    part = _find_part(demand, arguments.get("method", "near"))
    return {"data": demand.at_all_places()} if part is None else {"data": part, "target": demand}


@process(categories=["cubes", "reproject"], needs=_needs_of_target, raw_values_of=("data",))
def resample_cube_spatial(
    data: SpatialCube, target: SpatialCube, method: Method = "near", *, env: Environment | None = None
) -> SpatialCube:
    """Put a raster cube on the pixel grid of another one.

    The result has the labels of ``target`` along x and y, with no-data where ``data`` has no pixels. A cube
    that is already on that grid is returned as it is. Methods that select pixels (near, mode, min, max, med,
    q1, q3) keep integers and their no-data value; the others return floats.

    Args:
        data: A raster cube.
        target: A raster cube on the target grid.
        method: The resampling method, named as in gdalwarp.

    Returns:
        The cube on the grid of the target; other dimensions stay.
    """
    grid = rasterize.get_grid(data, "resample_cube_spatial")
    target_grid = rasterize.get_grid(target, "resample_cube_spatial", "target")
    return warp(data, grid, target_grid, method, find_part_window(env, target_grid))
