"""Slope and aspect of elevation models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube.block_overlap import map_with_overlap
from odc_openeo.registry.child_results import restore_coordinates
from odc_openeo.registry.demand import with_neighbours
from odc_openeo.registry.process import process
from odc_openeo.registry.schemas import SpatialCube
from odc_openeo.spatial import rasterize

_METRES_PER_DEGREE: Final = np.pi / 180 * 6_371_000.0

_SLAB_PIXELS: Final = 2**15
"""Pixels that are calculated at once, so that what is held meanwhile stays in the cache of the processor."""


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
    return _apply_to_gradient(_fill_slopes, data, "slope")


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
    return _apply_to_gradient(_fill_aspects, data, "aspect")


Fill = Callable[[np.ndarray, np.ndarray, np.ndarray], None]
"""Takes the rise per metre towards the east and towards the north; fills an array with values."""


def _fill_slopes(east: np.ndarray, north: np.ndarray, result: np.ndarray) -> None:
    np.hypot(east, north, out=result)
    np.arctan(result, out=result)
    np.rad2deg(result, out=result)


def _fill_aspects(east: np.ndarray, north: np.ndarray, result: np.ndarray) -> None:
    np.arctan2(-east, -north, out=result)
    np.rad2deg(result, out=result)
    result %= 360
    result[(east == 0) & (north == 0)] = np.nan


def _apply_to_gradient(fill: Fill, data: xr.DataArray, process: str) -> xr.DataArray:
    """The values that a function fills in for the gradient of elevations, in one pass over each chunk."""
    grid = rasterize.get_grid(data, process)
    heights = cube.decode(data).transpose(..., cube.Y, cube.X)
    width, height, row_values = grid.transform.a, grid.transform.e, None
    if grid.crs.geographic:
        width, height = width * _METRES_PER_DEGREE, height * _METRES_PER_DEGREE
        row_values = np.cos(np.deg2rad(data.coords[cube.Y].values))
    function = partial(_fill_from_heights, fill=fill, width=width, height=height)
    if heights.size:
        values = map_with_overlap(function, heights.data, (1, 1), np.nan, np.float64, row_values)
    else:
        values = heights.data.astype(np.float64)
    return restore_coordinates(xr.DataArray(values, dims=heights.dims).transpose(*data.dims), data)


def _fill_from_heights(
    block: np.ndarray, fill: Fill, width: float, height: float, row_values: np.ndarray | None = None
) -> np.ndarray:
    """Fill a block from elevations that are extended by a pixel on all sides, some rows after the others.

    Args:
        block: elevations ``(..., y, x)``.
        fill: see `Fill`.
        width: distance of columns in metres, to be multiplied by the ``row_values``.
        height: distance of rows in metres.
        row_values: a factor for each row.
    """
    rows, columns = (size - 2 for size in block.shape[-2:])
    result = np.empty((*block.shape[:-2], rows, columns))
    step = max(1, _SLAB_PIXELS // max(columns, 1))
    with np.errstate(all="ignore"):
        for plane in np.ndindex(block.shape[:-2]):
            for first in range(0, rows, step):
                last = min(first + step, rows)
                # A column of factors only where they differ from row to row.
                widths = width if row_values is None else width * row_values[first:last, None]
                rises = _sum_rises(block[plane][first : last + 2].astype(np.float64))
                fill(rises[0] / (8 * widths), rises[1] / (8 * height), result[plane][first:last])
    return result


def _sum_rises(heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weighted rises to the right and downwards of all pixels but those at the border."""
    right = heights[:, 2:] - heights[:, :-2]
    to_right = right[:-2] + 2 * right[1:-1]
    to_right += right[2:]
    down = heights[2:] - heights[:-2]
    downwards = down[:, :-2] + 2 * down[:, 1:-1]
    downwards += down[:, 2:]
    return to_right, downwards
