"""openEO arrays, wherever they come from: JSON lists, labelled arrays, and cubes along the dimension `ARRAY`.

Processes on arrays read their arguments with `as_sequence`. They walk along the array dimension of a cube
with `reduce_blocks` (chunks are reduced one by one and then together, nothing is rechunked) or, where a
result needs the whole array of a pixel at once, with `apply_along_array` (the pixels are split instead, so
that blocks stay small).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY, NODATA, LabeledArray
from odc_openeo.cube.streaming_reduction import apply_in_slabs, make_kernel_fold
from odc_openeo.cube.surround import apply_inside
from odc_openeo.errors import ProcessParameterInvalid

BLOCK_BYTES: Final = 64 * 2**20
"""Target size of a block that holds the whole arrays of its pixels."""


def as_sequence(data: Any, process: str, parameter: str = "data") -> list[Any] | xr.DataArray:
    """The array as a list of JSON values, or as a DataArray along `ARRAY` if any element is a cube.

    Raises:
        ProcessParameterInvalid: it is not an array but, say, a whole cube.
    """
    if isinstance(data, xr.DataArray) and ARRAY in data.dims:
        return data
    if isinstance(data, LabeledArray):
        stacked = as_sequence(list(data.values), process, parameter)
        if isinstance(stacked, xr.DataArray):
            return with_labels(stacked, data.labels)
        return stacked
    if isinstance(data, list | tuple):
        return cube.stack(data) if any(isinstance(v, xr.DataArray) for v in data) else list(data)
    what = "a data cube" if cube.is_cube(data) else f"a {type(data).__name__}"
    reason = f"it must be an array, not {what}. Use it in a child process, for example of reduce_dimension."
    raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)


def as_numbers(data: Any, process: str) -> list[Any] | xr.DataArray:
    """Like `as_sequence`; the elements of a list must be numbers or null."""
    values = as_sequence(data, process)
    if isinstance(values, list):
        _check_elements(
            values, process, "numbers", lambda v: isinstance(v, int | float) and not isinstance(v, bool)
        )
    return values


def as_booleans(data: Any, process: str) -> list[Any] | xr.DataArray:
    """Like `as_sequence`; the elements of a list must be booleans or null."""
    values = as_sequence(data, process)
    if isinstance(values, list):
        _check_elements(values, process, "booleans", lambda v: isinstance(v, bool))
    return values


def _check_elements(values: list[Any], process: str, kind: str, accepts: Callable[[Any], bool]) -> None:
    wrong = next((v for v in values if v is not None and not accepts(v)), None)
    if wrong is not None:
        reason = f"its elements must be {kind} or null; {wrong!r:.60} is neither."
        raise ProcessParameterInvalid(process=process, parameter="data", reason=reason)


# --- Labels --------------------------------------------------------------------------------------


def is_labeled(data: Any) -> bool:
    """Whether the array has labels."""
    return isinstance(data, LabeledArray) or (isinstance(data, xr.DataArray) and ARRAY in data.coords)


def get_labels(data: Any) -> list[Any]:
    """The labels of an array as JSON values; 0, 1, 2, … if it has none."""
    if isinstance(data, LabeledArray):
        return list(data.labels)
    return cube.labels(data, ARRAY) if isinstance(data, xr.DataArray) else list(range(len(data)))


def with_labels(data: xr.DataArray, names: Sequence[Any] | None) -> xr.DataArray:
    """The array of a cube with new labels, or with none. RFC 3339 strings become times again."""
    bare = data.drop_vars(ARRAY, errors="ignore")
    return bare if names is None else bare.assign_coords({ARRAY: (ARRAY, as_label_values(names))})


def as_label_values(names: Sequence[Any]) -> np.ndarray:
    """Labels as coordinate values: numbers, times, strings, or objects where they are mixed."""
    values = list(names)
    if values and all(isinstance(v, str) for v in values):
        try:
            return np.array([np.datetime64(_strip_utc(v), "ns") for v in values])
        except ValueError:
            return np.array(values)
    plain = np.array(values)
    return plain if plain.dtype.kind in "if" else np.array(values, dtype=object)


def _strip_utc(text: str) -> str:
    if "T" not in text or not text.endswith("Z"):
        raise ValueError(text)
    return text[:-1]


# --- Reduction chunk by chunk --------------------------------------------------------------------


def reduce_blocks(
    kernel: Callable[..., np.ndarray],
    data: xr.DataArray,
    dtype: Any,
    combine: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> xr.DataArray:
    """Reduce along `ARRAY` with a kernel that may be applied to its own results.

    Args:
        kernel: takes a block, ``axis`` and ``keepdims``; the block has at least one element along the axis.
        data: a DataArray along `ARRAY`, not empty.
        dtype: dtype of the result.
        combine: does the same with two results, if there is such a function.

    Returns:
        The DataArray without `ARRAY`; lazy if ``data`` is.
    """
    axis = data.get_axis_num(ARRAY)
    source = data.data
    if not isinstance(source, da.Array):
        return make_field(data, _call_quietly(kernel, source, axis=(axis,), keepdims=False))
    reduced = make_kernel_fold(kernel, combine)(source, axis, dtype)
    return make_field(data, reduced)


def make_field(data: xr.DataArray, values: Any) -> xr.DataArray:
    """A DataArray of one value per pixel, with dimensions, coordinates and attributes as in ``data``."""
    dims = [d for d in data.dims if d != ARRAY]
    coords = {k: c for k, c in data.coords.items() if ARRAY not in c.dims}
    return xr.DataArray(values, dims=dims, coords=coords, attrs=data.attrs, name=data.name)


def make_constant_field(data: xr.DataArray, value: Any, dtype: Any) -> xr.DataArray:
    """A constant value for each pixel of an array of a cube, lazy if the cube is."""
    axis = data.get_axis_num(ARRAY)
    shape = [n for i, n in enumerate(data.shape) if i != axis]
    if not isinstance(data.data, da.Array):
        return make_field(data, np.full(shape, value, dtype))
    chunks = [c for i, c in enumerate(data.data.chunks) if i != axis]
    return make_field(data, da.full(shape, value, chunks=chunks, dtype=dtype))


def _call_quietly(kernel: Callable[..., Any], block: Any, **options: Any) -> Any:
    with np.errstate(all="ignore"):
        return kernel(block, **options)


# --- Whole arrays of pixels ----------------------------------------------------------------------


def apply_along_array(
    kernel: Callable[..., np.ndarray], data: xr.DataArray, dtype: Any, size: int | None = None
) -> xr.DataArray:
    """Apply a kernel that needs the whole array of a pixel at once.

    Args:
        kernel: takes a block and ``axis``; gives the block with ``size`` elements along the axis, or without
            the axis if ``size`` is None.
        data: a DataArray along `ARRAY`.
        dtype: dtype of the result.
        size: length of the resulting arrays.

    Returns:
        A DataArray along `ARRAY` without labels, or without `ARRAY`; lazy if ``data`` is.
    """
    axis = data.get_axis_num(ARRAY)
    whole = rechunk_whole_arrays(data)
    source = whole.data
    if not isinstance(source, da.Array):
        values = _call_quietly(kernel, source, axis=axis)
    else:
        values = _map_blocks(kernel, source, axis, dtype, size)
    return make_field(whole, values) if size is None else make_elements(whole, values)


def make_elements(data: xr.DataArray, values: Any) -> xr.DataArray:
    """A DataArray along `ARRAY` without labels, with dimensions, coordinates and attributes of ``data``."""
    coords = {k: c for k, c in data.coords.items() if ARRAY not in c.dims}
    return xr.DataArray(values, dims=data.dims, coords=coords, attrs=data.attrs, name=data.name)


def _reduce_in_slabs(kernel: Callable[..., Any], block: np.ndarray, axis: int) -> np.ndarray:
    (values,) = apply_in_slabs(lambda part, axis: (kernel(part, axis=axis),), axis, block)
    return values


def _map_in_slabs(kernel: Callable[..., Any], block: np.ndarray, axis: int) -> np.ndarray:
    (values,) = apply_in_slabs(
        lambda part, axis: (np.moveaxis(kernel(part, axis=axis), axis, -1),), axis, block
    )
    return np.moveaxis(values, -1, axis)


def rechunk_whole_arrays(data: xr.DataArray) -> xr.DataArray:
    """Rechunk to one chunk along `ARRAY`; the other dimensions are split to keep blocks small."""
    if not isinstance(data.data, da.Array) or len(data.chunksizes[ARRAY]) <= 1:
        return data
    axis = data.get_axis_num(ARRAY)
    if not data.size:
        return data.copy(data=data.data.rechunk({axis: -1}))
    return data.copy(data=apply_inside(partial(_rechunk_arrays, axis=axis), data.data))


def _rechunk_arrays(array: da.Array, axis: int) -> da.Array:
    """One chunk along an axis; the others are cut into small blocks."""
    chunks: list[Any] = list(array.chunks)
    chunks[axis] = (array.shape[axis],)
    pixels = math.prod(max(c) for i, c in enumerate(chunks) if i != axis)
    pieces = math.ceil(array.dtype.itemsize * array.shape[axis] * pixels / BLOCK_BYTES)
    # Cut only within chunks: a block that crosses them would need several columns of chunks at once.
    # Cut the last dimension first: a reduction that takes the pieces in order then finds a column together.
    for i in sorted((i for i in range(array.ndim) if i != axis), key=lambda i: (-max(chunks[i]), -i)):
        cuts = min(pieces, max(chunks[i]))
        chunks[i] = tuple(part for c in chunks[i] for part in _split_length(c, cuts))
        pieces = math.ceil(pieces / cuts)
    return array.rechunk(tuple(chunks))


def _split_length(length: int, pieces: int) -> list[int]:
    """Split a length into equal parts, about as many as ``pieces``."""
    size = math.ceil(length / pieces)
    return [min(size, length - start) for start in range(0, length, size)]


def _map_blocks(
    kernel: Callable[..., Any], source: da.Array, axis: int, dtype: Any, size: int | None
) -> da.Array:
    if size is None:
        meta = np.empty((0,) * (source.ndim - 1), dtype)
        one = partial(_reduce_in_slabs, kernel)
        return source.map_blocks(one, axis=axis, dtype=dtype, drop_axis=axis, meta=meta)
    slabs = partial(_map_in_slabs, kernel)
    chunks = tuple((size,) if i == axis else c for i, c in enumerate(source.chunks))
    meta = np.empty((0,) * source.ndim, dtype)
    return source.map_blocks(slabs, axis=axis, dtype=dtype, chunks=chunks, meta=meta)


# --- No-data of integers -------------------------------------------------------------------------


def apply_by_nodata(
    function: Callable[[xr.DataArray, Any], xr.DataArray], data: xr.DataArray
) -> xr.DataArray:
    """Apply a function that needs one no-data value: ``function(data, value)``; None if there is none.

    Bands with different no-data values are treated one by one. If the array itself runs along the bands,
    its values are decoded first.
    """
    missing = cube.nodata(data)
    if not isinstance(missing, xr.DataArray):
        return function(data, missing)
    missing = load_coordinate(missing)
    values = np.unique(missing.values)
    if values.size == 1:
        return function(cube.with_nodata(data, values[0].item()), values[0].item())
    if ARRAY in missing.dims:
        return function(cube.decode(data), np.nan)
    (bands,) = missing.dims
    parts = [
        _apply_to_band(function, data.isel({bands: [i]}), missing.values[i].item())
        for i in range(missing.size)
    ]
    joined = xr.concat(parts, dim=bands, coords="minimal", compat="override", combine_attrs="drop_conflicts")
    return joined.assign_coords({NODATA: missing})


def load_coordinate(coordinate: xr.DataArray) -> xr.DataArray:
    """A coordinate as numpy: chunking a cube chunks its coordinates as well, needlessly."""
    return coordinate.compute(scheduler="synchronous")


def _apply_to_band(
    function: Callable[[xr.DataArray, Any], xr.DataArray], band: xr.DataArray, value: Any
) -> xr.DataArray:
    result = function(cube.with_nodata(band, value), value)
    result.attrs.pop(NODATA, None)
    return result.drop_vars(NODATA, errors="ignore")


def find_pixel_shape(arrays: Sequence[xr.DataArray]) -> xr.DataArray | None:
    """A DataArray with all dimensions of the arrays except `ARRAY`; None if they have no others."""
    fields = [a.isel({ARRAY: 0}, drop=True) if ARRAY in a.dims else a for a in arrays]
    shaped = [f.drop_vars(NODATA, errors="ignore") for f in fields if f.dims]
    return xr.broadcast(*shaped)[0] if shaped else None
