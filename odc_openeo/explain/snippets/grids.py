"""Neighbouring pixels."""

import itertools

import numpy as np
import xarray as xr
from scipy import ndimage


def correlate(data, kernel, **border):
    """The sum of neighbours, weighted by a kernel."""

    def apply(values):
        weights = kernel.reshape((1,) * (values.ndim - 2) + kernel.shape)
        return ndimage.correlate(values, weights, **border)

    return xr.apply_ufunc(apply, data.transpose(..., "y", "x")).transpose(*data.dims)


def find_gradient(data):
    """The rise to the east and to the north, by the weights of Horn; NaN at the borders."""
    heights = data.astype(float)

    def neighbor(down, right):
        return heights.shift(y=-down, x=-right)

    rows = [neighbor(d, 1) - neighbor(d, -1) for d in (-1, 0, 1)]
    columns = [neighbor(1, r) - neighbor(-1, r) for r in (-1, 0, 1)]
    width, height = data.odc.geobox.transform.a, data.odc.geobox.transform.e
    if data.odc.crs.geographic:
        metres = 6371000 * np.pi / 180
        width = width * metres * np.cos(np.deg2rad(data["y"]))
        height *= metres
    east = (rows[0] + 2 * rows[1] + rows[2]) / (8 * width)
    north = (columns[0] + 2 * columns[1] + columns[2]) / (8 * height)
    return east, north


def map_blocks(function, data, sizes, margins=None):
    """Apply a function to blocks of a cube, with labels around each; NaN is around the cube."""
    margins = margins or {}
    wide = data.pad({name: (n, n) for name, n in margins.items()}) if margins else data
    result = xr.full_like(data, np.nan, dtype=float)
    starts = [range(0, data.sizes[name], size) for name, size in sizes.items()]
    for corner in itertools.product(*starts):
        inner, outer, middle = {}, {}, {}
        for name, start in zip(sizes, corner):
            stop = min(start + sizes[name], data.sizes[name])
            margin = margins.get(name, 0)
            inner[name] = slice(start, stop)
            outer[name] = slice(start, stop + 2 * margin)
            middle[name] = slice(margin, margin + stop - start)
        block = function(wide.isel(outer)).transpose(*data.dims).isel(middle)
        result[inner] = block.values
    return result
