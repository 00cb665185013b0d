"""Focal operations: convolution, windows, neighbourhoods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Final

import dask.array as da
import numpy as np
import scipy.ndimage
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from odc_openeo import cube
from odc_openeo.cube.block_overlap import BORDERS, map_with_overlap
from odc_openeo.cube.budget import check_count
from odc_openeo.cube.elementwise import drop_boolean_mark
from odc_openeo.errors import KernelDimensionsUneven, ProcessParameterInvalid
from odc_openeo.registry.child_results import as_field, restore_coordinates
from odc_openeo.registry.demand import Demand
from odc_openeo.registry.geometry_schemas import Corner, PixelReducer
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import AnyValue, SpatialCube
from odc_openeo.spatial import rasterize
from odc_openeo.spatial.row_order import find_reversed_dimensions, reverse_dimensions

MAX_KERNEL_CELLS: Final = 101 * 101
"""Largest number of cells of a kernel; each pixel takes one multiplication per cell."""
MAX_WINDOW_LENGTH: Final = 1024
"""Largest number of pixels along a side of a window, unless the cube is larger."""
MAX_WINDOW_PIXELS: Final = 4096 * 4096

_NUMBERS: Final = {"type": "array", "items": {"type": "number"}}
Kernel = Annotated[
    Sequence[Sequence[float]], Schema({"type": "array", "subtype": "kernel", "items": _NUMBERS})
]
Factor = Annotated[float, Schema({"type": "number"})]
Border = Annotated[str | float, Schema([{"type": "string", "enum": list(BORDERS)}, {"type": "number"}])]


def _kernel_needs(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    kernel, border = arguments.get("kernel"), arguments.get("border", 0)
    rows = kernel if isinstance(kernel, list) and all(isinstance(row, list) for row in kernel) else []
    # A border that wraps needs the pixels of the opposite side.
    if not rows or not isinstance(border, int | float | str) or border == "wrap":
        return {"data": demand.at_all_places()}
    return {"data": demand.with_margin(max(len(rows), *(len(row) for row in rows)) // 2)}


@process(categories=["cubes", "math > image filter"], needs=_kernel_needs)
def apply_kernel(
    data: SpatialCube, kernel: Kernel, factor: Factor = 1, border: Border = 0, replace_invalid: Factor = 0
) -> SpatialCube:
    """Weighted sums of neighbouring pixels.

    Each pixel becomes the sum of the pixels around it, multiplied by the weights of the kernel (not
    mirrored) and by the factor. The result holds floats.

    Args:
        data: A raster cube.
        kernel: The weights; the inner arrays run along x and the outer array along y, from the upper left
            (north-west) corner. Both lengths must be odd.
        factor: A factor to multiply each sum by.
        border: How to extend the cube beyond its border: with a number, or with its own pixels in the named
            way.
        replace_invalid: The value to use instead of no-data, NaN and infinite values.

    Returns:
        The cube with new values and the same dimensions.

    Raises:
        KernelDimensionsUneven: One of the lengths of the kernel is even.
    """
    weights = _parse_kernel(kernel)
    reversed_dimensions = find_reversed_dimensions(data)
    ordered = cube.decode(reverse_dimensions(data, reversed_dimensions).transpose(..., cube.Y, cube.X))
    if ordered.dtype.kind not in "f":
        ordered = ordered.astype(float)
    clean = drop_boolean_mark(ordered.where(np.isfinite(ordered), replace_invalid))
    depth = weights.shape[0] // 2, weights.shape[1] // 2
    convolve = partial(_convolve_block, weights=weights * factor)
    values = map_with_overlap(convolve, clean.data, depth, border) if clean.size else clean.data
    filtered = reverse_dimensions(clean.copy(data=values), reversed_dimensions)
    return restore_coordinates(filtered.transpose(*data.dims), data)


def _parse_kernel(kernel: Sequence[Sequence[float]]) -> np.ndarray:
    lengths = {len(row) for row in kernel}
    if len(lengths) != 1:
        reason = "all inner arrays must have the same length."
        raise ProcessParameterInvalid(process="apply_kernel", parameter="kernel", reason=reason)
    cells = len(kernel) * lengths.pop()
    check_count(
        cells, MAX_KERNEL_CELLS, "cells of the kernel", "Resample the cube first and use a smaller kernel."
    )
    weights = np.asarray(kernel, dtype=float)
    if any(n % 2 == 0 for n in weights.shape):
        raise KernelDimensionsUneven(shape=" x ".join(map(str, weights.shape)))
    return weights


def _convolve_block(block: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted sums of a block that is extended by as many pixels as the kernel reaches."""
    kernel = weights.reshape((1,) * (block.ndim - 2) + weights.shape)
    sums = scipy.ndimage.correlate(block, kernel, mode="constant")
    rows, columns = (
        slice(n // 2, size - n // 2) for n, size in zip(weights.shape, block.shape[-2:], strict=True)
    )
    return sums[..., rows, columns]


# --- Windows -------------------------------------------------------------------------------------

WindowSize = Annotated[
    Sequence[int],
    Schema({"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "integer", "minimum": 1}}),
]
Boundary = Annotated[str, Schema({"type": "string", "enum": ["pad", "trim"]})]


def _needs_of_windows(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    size = arguments.get("size")
    if demand.in_part and isinstance(size, list):
        return {"data": demand.with_margin(max(size))}
    return {"data": demand.at_all_places()}


@process(
    categories=["cubes", "aggregate"],
    experimental=True,
    needs=_needs_of_windows,
    raw_values_of=None,
)
def aggregate_spatial_window(
    data: SpatialCube,
    reducer: PixelReducer,
    size: WindowSize,
    boundary: Boundary = "pad",
    align: Corner = "upper-left",
    context: AnyValue = None,
) -> SpatialCube:
    """Statistics of the pixels in rectangular windows.

    Args:
        data: A raster cube.
        reducer: A child process that reduces the values of all pixels in a window to one value.
        size: The size of a window along x and y, in pixels.
        boundary: How to treat incomplete windows: fill them up with no-data (`pad`) or leave them out
            (`trim`).
        align: The corner of the cube with which the windows are aligned.
        context: Passed on to the reducer.

    Returns:
        The cube with one pixel per window, labelled with the centre of the window.
    """
    grid = rasterize.get_grid(data, "aggregate_spatial_window")
    ordered = data.transpose(..., cube.Y, cube.X)
    upper, left = align.startswith("upper"), align.endswith("left")
    from_start = upper == (grid.transform.e < 0), left == (grid.transform.a > 0)
    _check_windows(ordered, size)
    counts, before, fitted = [], [], ordered
    for dimension, length, start in zip((cube.Y, cube.X), reversed(size), from_start, strict=True):
        count, offset, fitted = _fit_to_windows(fitted, dimension, length, start, boundary == "pad")
        counts.append(count)
        before.append(offset)
    if not all(counts):
        reason = f"a window of {size[0]} x {size[1]} pixels is larger than the cube. Use a smaller window."
        raise ProcessParameterInvalid(process="aggregate_spatial_window", parameter="size", reason=reason)
    cells = GeoBox(counts, grid.transform @ Affine.translation(*before[::-1]) @ Affine.scale(*size), grid.crs)
    stacked = _stack_windows(fitted, counts, size)
    like = stacked.isel({cube.ARRAY: 0}, drop=True)
    reduced = as_field(reducer(data=stacked, context=context), like, "aggregate_spatial_window", "reducer")
    labels = xr_coords(cells, crs_coord_name="spatial_ref", always_yx=True)
    return reduced.assign_coords(labels).transpose(*data.dims)


def _check_windows(data: xr.DataArray, size: Sequence[int]) -> None:
    """Refuse windows far larger than the cube: they would be padded with no-data and held in memory."""
    for dimension, length in zip((cube.X, cube.Y), size, strict=True):
        limit = max(MAX_WINDOW_LENGTH, data.sizes[dimension])
        advice = f"The cube has {data.sizes[dimension]}. Choose a smaller size."
        check_count(length, limit, f"pixels of a window along {dimension}", advice)
    check_count(math.prod(size), MAX_WINDOW_PIXELS, "pixels of a window", "Choose a smaller size.")


def _fit_to_windows(
    data: xr.DataArray, dimension: str, length: int, from_start: bool, pad: bool
) -> tuple[int, int, xr.DataArray]:
    """Trim or pad the cube to whole windows; return their number, the offset of the first, and the cube."""
    pixels = data.sizes[dimension]
    count = -(-pixels // length) if pad else pixels // length
    change = count * length - pixels
    offset = 0 if from_start else -change
    if change < 0:
        cut = slice(0, count * length) if from_start else slice(-change, None)
        return count, offset, data.isel({dimension: cut})
    return count, offset, pad_with_nodata(data, {dimension: (0, change) if from_start else (change, 0)})


def pad_with_nodata(data: xr.DataArray, widths: dict[str, tuple[int, int]]) -> xr.DataArray:
    """Pad the cube with no-data; integers without a no-data value become floats. Labels are lost."""
    if not any(any(w) for w in widths.values()):
        return data
    missing = cube.nodata(data)
    if missing is None or isinstance(missing, xr.DataArray):
        data, missing = cube.decode(data), np.nan
    if data.size:
        filled = data.variable.pad(widths, mode="constant", constant_values=missing)
    else:
        # Dask cannot pad arrays without elements.
        shape = [size + sum(widths.get(str(d), (0, 0))) for d, size in data.sizes.items()]
        filled = xr.Variable(data.dims, da.full(shape, missing, dtype=data.dtype, chunks=-1))
    coords = {k: c for k, c in data.coords.items() if not set(widths) & set(c.dims)}
    return xr.DataArray(filled.astype(data.dtype, copy=False), coords=coords, attrs=data.attrs)


def _stack_windows(data: xr.DataArray, counts: Sequence[int], size: Sequence[int]) -> xr.DataArray:
    """Reshape ``(..., y, x)`` to ``(..., y, x, ARRAY)`` with the pixels of each window along the last."""
    array = data.data
    width, height = size
    if isinstance(array, da.Array):
        window_chunks = [
            tuple(_whole_multiples(c, step))
            for c, step in zip(array.chunks[-2:], (height, width), strict=True)
        ]
        array = array.rechunk((*array.chunks[:-2], *window_chunks))
    leading = array.shape[:-2]
    split = array.reshape((*leading, counts[0], height, counts[1], width))
    stacked = split.swapaxes(-3, -2).reshape((*leading, *counts, height * width))
    coords = {k: c.variable for k, c in data.coords.items() if not {cube.X, cube.Y} & set(c.dims)}
    coords.pop("spatial_ref", None)
    return xr.DataArray(stacked, dims=(*data.dims, cube.ARRAY), coords=coords, attrs=data.attrs)


def _whole_multiples(chunks: Sequence[int], step: int) -> list[int]:
    """Return chunks of about the given sizes that are whole multiples of a step."""
    total = sum(chunks)
    size = max(step, max(chunks) // step * step)
    return [min(size, total - start) for start in range(0, total, size)]
