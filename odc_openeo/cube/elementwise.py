"""Calculate value by value: JSON values exactly, cubes lazily and blockwise.

JSON: ``null`` in gives ``null`` out, integers stay exact, NaN and infinities follow IEEE 754. Cubes:
integers are decoded to floats first, no-data is NaN and stays NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.errors import DimensionMismatch, IncompatibleDataCubes

BOOLEAN: Final = "boolean"
"""Value of the attribute `cube.TYPE` of a float cube of booleans: 1, 0 and NaN for no-data."""

_PIECE: Final = 2**16
"""Values that are calculated at once."""


def has_cube(*values: Any) -> bool:
    """Whether any value is a DataArray, so that the result is one too."""
    return any(isinstance(v, xr.DataArray) for v in values)


def elementwise(on_json: Callable[..., Any], on_blocks: Callable[..., Any], *values: Any) -> Any:
    """Apply an operation on numbers to JSON numbers and cubes in any mix.

    Args:
        on_json: takes Python numbers, none of them null.
        on_blocks: does the same with numpy arrays, any of which may be a Python float; picklable.
        values: numbers, nulls, DataArrays.

    Returns:
        A JSON number, null if any value is null; or a float DataArray with NaN where any value is no-data.
    """
    if has_cube(*values):
        return apply_to_cubes(on_blocks, *values)
    if any(v is None for v in values):
        return None
    try:
        return as_json_number(on_json(*values))
    except OverflowError:
        return as_json_number(on_json(*(as_float(v) for v in values)))


def apply_to_cubes(on_blocks: Callable[..., Any], *values: Any) -> xr.DataArray:
    """Apply an operation on numpy arrays block by block to cubes (decoded) and scalars."""
    if any(isinstance(v, xr.DataArray) and v.dtype.kind in "OUS" for v in values):
        raise IncompatibleDataCubes(reason="numbers are needed here, not strings of a data cube.")
    result = blockwise(on_blocks, *(_as_operand(v) for v in values))
    result.attrs.pop(cube.TYPE, None)
    return result


def apply_ieee(ufunc: Callable[..., Any], *values: Any) -> Any:
    """Apply a numpy function of floats: IEEE 754 results instead of exceptions."""
    return elementwise(partial(_apply_to_scalars, ufunc), ufunc, *values)


def blockwise(function: Callable[..., Any], *arrays: Any) -> xr.DataArray:
    """Apply a function of numpy arrays to scalars and DataArrays whose coordinates are the same.

    Raises:
        DimensionMismatch: the labels of a common dimension differ.
    """
    try:
        return xr.apply_ufunc(
            partial(_apply_to_chunks, function),
            *arrays,
            dask="allowed",
            join="exact",
            keep_attrs="drop_conflicts",
        )
    except xr.AlignmentError as error:
        raise DimensionMismatch(
            reason="the labels of a dimension differ. Resample or merge the cubes first."
        ) from error


def as_json_number(value: Any) -> Any:
    """Convert to a JSON number: numpy scalars to Python, integers beyond the range of floats to infinity."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 1000:
        return as_float(value)
    return value


def as_float(value: float) -> float:
    """The number as a float, infinite if it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf


def mark_boolean(data: xr.DataArray) -> xr.DataArray:
    """Mark a cube of 1, 0 and NaN as booleans."""
    return data.assign_attrs({cube.TYPE: BOOLEAN})


def drop_boolean_mark(data: xr.DataArray) -> xr.DataArray:
    """The cube as one of numbers: what is computed from booleans is not boolean any more."""
    if cube.TYPE not in data.attrs:
        return data
    bare = data.copy(deep=False)
    bare.attrs = {name: value for name, value in data.attrs.items() if name != cube.TYPE}
    return bare


def is_boolean(value: Any) -> bool:
    """Whether a value is a boolean or a cube of booleans."""
    if isinstance(value, xr.DataArray):
        return value.dtype == bool or value.attrs.get(cube.TYPE) == BOOLEAN
    return isinstance(value, bool)


def make_nodata_like(data: xr.DataArray) -> xr.DataArray:
    """A cube of that shape that holds only no-data; floats if the dtype has no no-data value."""
    missing = cube.nodata(data)
    if missing is None or np.issubdtype(data.dtype, np.floating):
        dtype = data.dtype if np.issubdtype(data.dtype, np.floating) else np.dtype(np.float32)
        return xr.full_like(data, np.nan, dtype=dtype)
    if isinstance(missing, xr.DataArray):
        return xr.zeros_like(data) + missing.astype(data.dtype)
    return xr.full_like(data, missing)


def _as_operand(value: Any) -> Any:
    if isinstance(value, xr.DataArray):
        return cube.decode(value)
    return np.nan if value is None else as_float(value)


def _apply_to_scalars(ufunc: Callable[..., Any], *values: float) -> float:
    with np.errstate(all="ignore"):
        return float(ufunc(*(np.float64(as_float(v)) for v in values)))


def _apply_to_chunks(function: Callable[..., Any], *arrays: Any) -> Any:
    if any(isinstance(a, da.Array) for a in arrays):
        return da.core.elemwise(partial(_call_quietly, function), *arrays)
    return _call_quietly(function, *arrays)


def _call_quietly(function: Callable[..., Any], *arrays: Any) -> Any:
    with np.errstate(all="ignore"):
        blocks = [a for a in arrays if isinstance(a, np.ndarray) and a.ndim]
        if not blocks or blocks[0].size < 2 * _PIECE or not _are_alike(blocks):
            return function(*arrays)
        return _apply_in_pieces(function, arrays, blocks[0])


def _are_alike(blocks: list[np.ndarray]) -> bool:
    return all(b.flags.c_contiguous and b.shape == blocks[0].shape for b in blocks)


def _apply_in_pieces(function: Callable[..., Any], arrays: tuple[Any, ...], like: np.ndarray) -> np.ndarray:
    """Apply a function of single values piece by piece: what it holds meanwhile stays in the cache."""
    flat = [a.reshape(-1) if isinstance(a, np.ndarray) and a.ndim else a for a in arrays]

    def call_at(first: int) -> Any:
        piece = slice(first, first + _PIECE)
        return function(*(a[piece] if isinstance(a, np.ndarray) and a.ndim else a for a in flat))

    begin = call_at(0)
    result = np.empty(like.size, begin.dtype)
    result[:_PIECE] = begin
    for first in range(_PIECE, like.size, _PIECE):
        result[first : first + _PIECE] = call_at(first)
    return result.reshape(like.shape)


def labelwise(function: Callable[..., Any], *values: Any) -> Any:
    """Apply a function of JSON values to DataArrays of strings (labels) and JSON values in any mix."""
    if not has_cube(*values):
        return function(*values)
    if any(isinstance(v, xr.DataArray) and v.dtype.kind not in "OU" for v in values):
        raise IncompatibleDataCubes(reason="strings are needed here, not numbers of a data cube.")
    applied = xr.apply_ufunc(np.vectorize(function, otypes=[object]), *values, join="exact")
    return applied.copy(data=np.array(applied.values.tolist()))
