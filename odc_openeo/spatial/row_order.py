"""Which way rows and columns run: cubes that are loaded run from north to south and from west to east."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from odc_openeo.cube import X, Y

_REVERSED: Final = slice(None, None, -1)


def find_reversed_dimensions(data: xr.DataArray) -> list[str]:
    """The dimensions that run the other way: y from south to north, x from east to west."""
    reversed_dimensions = []
    for dimension, sign in ((Y, -1), (X, 1)):
        coordinates = data.coords[dimension].values if dimension in data.coords else np.empty(0)
        is_line = coordinates.ndim == 1 and coordinates.size > 1 and coordinates.dtype.kind in "iuf"
        if dimension in data.dims and is_line and (coordinates[-1] - coordinates[0]) * sign < 0:
            reversed_dimensions.append(dimension)
    return reversed_dimensions


def reverse_dimensions(data: xr.DataArray, dimensions: list[str]) -> xr.DataArray:
    """Reverse the order of labels and values along dimensions (lazy)."""
    return data.isel(dict.fromkeys(dimensions, _REVERSED)) if dimensions else data


def flip_north_up(data: xr.DataArray) -> xr.DataArray:
    """Flip a cube so that y descends and x ascends (lazy)."""
    return reverse_dimensions(data, find_reversed_dimensions(data))


def orient_grid(grid: GeoBox) -> tuple[GeoBox, list[str]]:
    """Turn an axis-aligned grid so that rows run south and columns east.

    Returns the grid and the dimensions that it has reversed.
    """
    dimensions = []
    if grid.transform.e > 0:
        grid = grid.flipy()
        dimensions.append(Y)
    if grid.transform.a < 0:
        grid = grid.flipx()
        dimensions.append(X)
    return grid, dimensions
