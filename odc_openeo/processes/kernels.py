"""Focal operations: convolution, windows, neighbourhoods."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Final

import dask.array as da
import numpy as np
import scipy.ndimage
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from odc_openeo import cube, rasterize
from odc_openeo.budget import check_count
from odc_openeo.demand import Demand, over
from odc_openeo.errors import KernelDimensionsUneven, ProcessParameterInvalid
from odc_openeo.process import Schema, process
from odc_openeo.processes.children import field, restored
from odc_openeo.processes.geometry_schemas import Corner, PixelReducer
from odc_openeo.processes.schemas import AnyValue, SpatialCube

MOST_CELLS: Final = 101 * 101
"""Cells of a kernel: each pixel takes as many multiplications."""
MOST_WINDOW: Final = 1024
"""Pixels along a side of a window, if the cube is not larger."""
MOST_WINDOW_PIXELS: Final = 4096 * 4096

_NUMBERS: Final = {"type": "array", "items": {"type": "number"}}
Kernel = Annotated[
    Sequence[Sequence[float]], Schema({"type": "array", "subtype": "kernel", "items": _NUMBERS})
]
BORDERS: Final = {"replicate": "edge", "reflect": "symmetric", "reflect_pixel": "reflect", "wrap": "wrap"}
"""numpy's names of the ways to go on beyond the border."""

Factor = Annotated[float, Schema({"type": "number"})]
Border = Annotated[str | float, Schema([{"type": "string", "enum": list(BORDERS)}, {"type": "number"}])]


def _needs(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    kernel, border = arguments.get("kernel"), arguments.get("border", 0)
    rows = kernel if isinstance(kernel, list) and all(isinstance(row, list) for row in kernel) else []
    # Beyond a border that wraps are the pixels of the other side.
    if not rows or not isinstance(border, int | float | str) or border == "wrap":
        return {"data": demand.everywhere()}
    return {"data": demand.grown(max(len(rows), *(len(row) for row in rows)) // 2)}


@process(categories=["cubes", "math > image filter"], needs=_needs)
def apply_kernel(
    data: SpatialCube, kernel: Kernel, factor: Factor = 1, border: Border = 0, replace_invalid: Factor = 0
) -> SpatialCube:
    """Weighted sums of neighbouring pixels.

    Each pixel becomes the sum of the pixels around it, times the weights of the kernel (not mirrored),
    times the factor. The result is of floats.

    Args:
        data: A raster cube.
        kernel: Weights; the inner arrays go along x, the outer along y, from the upper left in the order
            of the labels. Both lengths must be odd.
        factor: Multiplies each sum.
        border: What lies beyond the border: a number, or the cube's own pixels as named.
        replace_invalid: Stands for no-data, NaN and infinite values.

    Returns:
        The cube with new values and the same dimensions.

    Raises:
        KernelDimensionsUneven: A length of the kernel is even.
    """
    weights = _weights(kernel)
    ordered = cube.decode(data.transpose(..., cube.Y, cube.X))
    if ordered.dtype.kind not in "f":
        ordered = ordered.astype(float)
    clean = ordered.where(np.isfinite(ordered), replace_invalid)
    depth = weights.shape[0] // 2, weights.shape[1] // 2
    convolve = partial(_convolve, weights=weights * factor)
    if not clean.size:
        values: Any = clean.data
    elif isinstance(clean.data, da.Array):
        values = _overlapping(convolve, clean.data, depth, border)
    else:
        values = _trim(convolve(_padded(np, clean.data, depth, border)), depth)
    return restored(clean.copy(data=values).transpose(*data.dims), data)


def _weights(kernel: Sequence[Sequence[float]]) -> np.ndarray:
    lengths = {len(row) for row in kernel}
    if len(lengths) != 1:
        reason = "all inner arrays must have the same length."
        raise ProcessParameterInvalid(process="apply_kernel", parameter="kernel", reason=reason)
    cells = len(kernel) * lengths.pop()
    check_count(
        cells, MOST_CELLS, "cells of the kernel", "Resample the cube first and take a smaller kernel."
    )
    weights = np.asarray(kernel, dtype=float)
    if any(n % 2 == 0 for n in weights.shape):
        raise KernelDimensionsUneven(shape=" x ".join(map(str, weights.shape)))
    return weights


def _convolve(block: np.ndarray, weights: np.ndarray) -> np.ndarray:
    shaped = weights.reshape((1,) * (block.ndim - 2) + weights.shape)
    return scipy.ndimage.correlate(block, shaped, mode="constant")


def _padded(library: Any, array: Any, depth: tuple[int, int], border: Any) -> Any:
    widths = [(0, 0)] * (array.ndim - 2) + [(d, d) for d in depth]
    if isinstance(border, str):
        return library.pad(array, widths, mode=BORDERS[border])
    return library.pad(array, widths, mode="constant", constant_values=border)


def _trim(array: Any, depth: tuple[int, int]) -> Any:
    rows, columns = (slice(d, n - d) for d, n in zip(depth, array.shape[-2:], strict=True))
    return array[..., rows, columns]


def _overlapping(
    function: Callable[[np.ndarray], np.ndarray], array: da.Array, depth: tuple[int, int], border: Any
) -> da.Array:
    """The function on each chunk with a rim of its neighbours (or the border) around it."""
    wide = _padded(da, array, depth, border)
    chunks = list(array.chunks)
    for axis, d in zip((-2, -1), depth, strict=True):
        inner = list(chunks[axis])
        inner[0] += d
        inner[-1] += d
        chunks[axis] = tuple(inner)
    deep = {array.ndim - 2: depth[0], array.ndim - 1: depth[1]}
    found = da.map_overlap(
        function, wide.rechunk(tuple(chunks)), depth=deep, boundary="none", trim=True, dtype=array.dtype
    )
    return _trim(found, depth).rechunk(array.chunks)


# --- Windows -------------------------------------------------------------------------------------

WindowSize = Annotated[
    Sequence[int],
    Schema({"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "integer", "minimum": 1}}),
]
Boundary = Annotated[str, Schema({"type": "string", "enum": ["pad", "trim"]})]


@process(categories=["cubes", "aggregate"], experimental=True, needs=over(cube.X, cube.Y))
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
        reducer: Makes one value of the values of all pixels of a window.
        size: Pixels along x and y of a window.
        boundary: What happens with incomplete windows: they are filled up with no-data (``pad``) or left out
            (``trim``).
        align: The corner from which the windows are counted.
        context: Passed on to the reducer.

    Returns:
        The cube with windows for pixels, labelled with their centres.
    """
    grid = rasterize.grid_of(data, "aggregate_spatial_window")
    ordered = data.transpose(..., cube.Y, cube.X)
    upper, left = align.startswith("upper"), align.endswith("left")
    from_start = upper == (grid.transform.e < 0), left == (grid.transform.a > 0)
    _check_windows(ordered, size)
    counts, before, fitted = [], [], ordered
    for dimension, length, start in zip((cube.Y, cube.X), reversed(size), from_start, strict=True):
        count, offset, fitted = _fit(fitted, dimension, length, start, boundary == "pad")
        counts.append(count)
        before.append(offset)
    if not all(counts):
        reason = f"a window of {size[0]} x {size[1]} pixels is larger than the cube and nothing is left."
        raise ProcessParameterInvalid(process="aggregate_spatial_window", parameter="size", reason=reason)
    cells = GeoBox(counts, grid.transform * Affine.translation(*before[::-1]) * Affine.scale(*size), grid.crs)
    stacked = _windows(fitted, counts, size)
    like = stacked.isel({cube.ARRAY: 0}, drop=True)
    reduced = field(reducer(data=stacked, context=context), like, "aggregate_spatial_window", "reducer")
    labels = xr_coords(cells, crs_coord_name="spatial_ref", always_yx=True)
    return reduced.assign_coords(labels).transpose(*data.dims)


def _check_windows(data: xr.DataArray, size: Sequence[int]) -> None:
    """Windows that reach far beyond the cube would be filled up with no-data, and held in memory whole."""
    for dimension, length in zip((cube.X, cube.Y), size, strict=True):
        most = max(MOST_WINDOW, data.sizes[dimension])
        advice = f"The cube has {data.sizes[dimension]}. Choose a smaller size."
        check_count(length, most, f"pixels of a window along {dimension}", advice)
    check_count(math.prod(size), MOST_WINDOW_PIXELS, "pixels of a window", "Choose a smaller size.")


def _fit(
    data: xr.DataArray, dimension: str, length: int, from_start: bool, pad: bool
) -> tuple[int, int, xr.DataArray]:
    """The cube cut or filled up to whole windows; their number, and where the first starts."""
    have = data.sizes[dimension]
    count = -(-have // length) if pad else have // length
    change = count * length - have
    offset = 0 if from_start else -change
    if change < 0:
        cut = slice(0, count * length) if from_start else slice(-change, None)
        return count, offset, data.isel({dimension: cut})
    return count, offset, padded(data, {dimension: (0, change) if from_start else (change, 0)})


def padded(data: xr.DataArray, widths: dict[str, tuple[int, int]]) -> xr.DataArray:
    """The cube with no-data around it; integers without a no-data value become floats. Labels are lost."""
    if not any(any(w) for w in widths.values()):
        return data
    missing = cube.nodata(data)
    if missing is None or isinstance(missing, xr.DataArray):
        data, missing = cube.decode(data), np.nan
    if data.size:
        filled = data.variable.pad(widths, mode="constant", constant_values=missing)
    else:
        # Dask cannot pad what has no elements.
        shape = [size + sum(widths.get(str(d), (0, 0))) for d, size in data.sizes.items()]
        filled = xr.Variable(data.dims, da.full(shape, missing, dtype=data.dtype, chunks=-1))
    coords = {k: c for k, c in data.coords.items() if not set(widths) & set(c.dims)}
    return xr.DataArray(filled.astype(data.dtype, copy=False), coords=coords, attrs=data.attrs)


def _windows(data: xr.DataArray, counts: Sequence[int], size: Sequence[int]) -> xr.DataArray:
    """``(..., y, x)`` as ``(..., y, x, ARRAY)`` with the pixels of each window along the last."""
    array = data.data
    width, height = size
    if isinstance(array, da.Array):
        wanted = [tuple(_whole(c, step)) for c, step in zip(array.chunks[-2:], (height, width), strict=True)]
        array = array.rechunk((*array.chunks[:-2], *wanted))
    lead = array.shape[:-2]
    split = array.reshape((*lead, counts[0], height, counts[1], width))
    moved = split.swapaxes(-3, -2).reshape((*lead, *counts, height * width))
    kept = {k: c.variable for k, c in data.coords.items() if not {cube.X, cube.Y} & set(c.dims)}
    kept.pop("spatial_ref", None)
    return xr.DataArray(moved, dims=(*data.dims, cube.ARRAY), coords=kept, attrs=data.attrs)


def _whole(chunks: Sequence[int], step: int) -> list[int]:
    """Chunks of about the given sizes that are whole multiples of a step."""
    total = sum(chunks)
    size = max(step, max(chunks) // step * step)
    return [min(size, total - start) for start in range(0, total, size)]
