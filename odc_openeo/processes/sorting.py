"""Sort arrays, or compute the order that sorts them.

No-data is removed or moved to the start or the end. In a cube all arrays have the same length, so no-data is
moved to the end instead of being removed. In JSON arrays NaN comes after all numbers.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY, LabeledArray
from odc_openeo.cube.arrays import (
    apply_along_array,
    apply_by_nodata,
    as_sequence,
    rechunk_whole_arrays,
    with_labels,
)
from odc_openeo.errors import ArrayElementNotAvailable, ProcessParameterInvalid
from odc_openeo.processes.dates import parse_moment
from odc_openeo.registry.process import Example, Schema, process
from odc_openeo.registry.schemas import Array, Boolean, JsonArray

_SORTABLE = {
    "type": "array",
    "items": {
        "anyOf": [
            {"type": "number"},
            {"type": "null"},
            {"type": "string", "format": "date-time", "subtype": "date-time"},
            {"type": "string", "format": "date", "subtype": "date"},
        ]
    },
}
Sortable = Annotated[JsonArray, Schema(_SORTABLE)]
Nodata = Annotated[bool | None, Schema({"type": ["boolean", "null"]})]
Permutation = Annotated[JsonArray, Schema({"type": "array", "items": {"type": "integer", "minimum": 0}})]


@process(
    categories=["arrays", "sorting"],
    examples=[
        Example({"data": [6, -1, None, 7]}, [1, 0, 3]),
        Example({"data": [6, -1, None, 7], "nodata": True}, [1, 0, 3, 2]),
        Example({"data": [6, -1, None, 7], "asc": False, "nodata": False}, [2, 3, 0, 1]),
    ],
)
def order(data: Sortable, asc: Boolean = True, nodata: Nodata = None) -> Permutation:
    """Order of the elements of an array.

    The positions of the elements in sorted order; equal elements keep their relative order. Use `rearrange`
    to apply it.

    Args:
        data: Numbers or dates.
        asc: Whether the smallest or earliest element comes first; if false, it comes last.
        nodata: Where to put no-data: true for the end, false for the start, null to remove it (in a cube:
            the end).

    Returns:
        The zero-based positions.
    """
    values = as_sequence(data, "order")
    if isinstance(values, xr.DataArray):
        return _order_in_cube(values, asc, nodata)
    return _order_list(values, asc, nodata, "order")


@process(
    categories=["arrays", "sorting"],
    examples=[
        Example({"data": [5, 4, 3], "order": [2, 1, 0]}, [3, 4, 5]),
        Example({"data": [5, 4, 3, 2], "order": [1, 3]}, [4, 2]),
    ],
    raw_values_of=("data",),
)
def rearrange(data: Array, order: Permutation) -> Array:
    """Rearrange the elements of an array.

    Args:
        data: An array.
        order: The zero-based positions of the elements in the new order; elements may be omitted.

    Returns:
        The rearranged array. Elements keep their labels, unless each pixel has its own order.
    """
    values = as_sequence(data, "rearrange")
    permutation = as_sequence(order, "rearrange", "order")
    if isinstance(permutation, xr.DataArray):
        return _rearrange_pixels(values, permutation)
    length = values.sizes[ARRAY] if isinstance(values, xr.DataArray) else len(values)
    invalid = next((p for p in permutation if not isinstance(p, int | float) or not 0 <= p < length), None)
    if invalid is not None:
        raise ArrayElementNotAvailable.at_index(invalid, length)
    places = [int(p) for p in permutation]
    if isinstance(values, xr.DataArray):
        return values.isel({ARRAY: places})
    rearranged = [values[p] for p in places]
    if isinstance(data, LabeledArray) and len(set(places)) == len(places):
        return LabeledArray([data.labels[p] for p in places], rearranged)
    return rearranged


@process(
    categories=["arrays", "sorting"],
    examples=[
        Example({"data": [6, -1, None, 7, 4]}, [-1, 4, 6, 7]),
        Example({"data": [6, -1, None, 7], "asc": False, "nodata": True}, [7, 6, -1, None]),
        Example({"data": ["2020-01-02", "2020-01-01"]}, ["2020-01-01", "2020-01-02"]),
    ],
    raw_values_of=("data",),
)
def sort(data: Sortable, asc: Boolean = True, nodata: Nodata = None) -> Sortable:
    """Sort an array.

    Args:
        data: Numbers or dates.
        asc: Whether the smallest or earliest element comes first; if false, it comes last.
        nodata: Where to put no-data: true for the end, false for the start, null to remove it (in a cube:
            the end).

    Returns:
        The sorted array, without labels.
    """
    values = as_sequence(data, "sort")
    if isinstance(values, xr.DataArray):
        unlabelled = with_labels(values, None)
        return apply_by_nodata(partial(_sort_by_nodata, asc, nodata), unlabelled)
    return [values[i] for i in _order_list(values, asc, nodata, "sort")]


# --- JSON ----------------------------------------------------------------------------------------


def _order_list(values: list[Any], asc: bool, nodata: bool | None, name: str) -> list[int]:
    keys = _sort_keys(values, name)
    missing = [i for i, v in enumerate(values) if v is None]
    not_numbers = [i for i, k in enumerate(keys) if isinstance(k, float) and math.isnan(k)]
    unranked = {*missing, *not_numbers}
    ranked = [i for i in range(len(values)) if i not in unranked]
    ranked.sort(key=lambda i: keys[i], reverse=not asc)
    ranked += not_numbers
    return ranked if nodata is None else [*ranked, *missing] if nodata else [*missing, *ranked]


def _sort_keys(values: list[Any], name: str) -> list[Any]:
    present = [v for v in values if v is not None]
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in present):
        return values
    try:
        if all(isinstance(v, str) for v in present):
            return [None if v is None else parse_moment(v).instant for v in values]
    except (ValueError, OverflowError) as error:
        raise ProcessParameterInvalid(process=name, parameter="data", reason=f"{error}.") from error
    reason = "its elements must all be numbers or all be dates."
    raise ProcessParameterInvalid(process=name, parameter="data", reason=reason)


# --- Cubes ---------------------------------------------------------------------------------------


def _sort_by_nodata(asc: bool, nodata: bool | None, data: xr.DataArray, missing: Any) -> xr.DataArray:
    kernel = partial(_sort_blocks, asc, nodata is not False, missing)
    return apply_along_array(kernel, data, data.dtype, size=data.sizes[ARRAY])


def _sort_blocks(asc: bool, at_end: bool, missing: Any, block: np.ndarray, axis: int) -> np.ndarray:
    """Sort with no-data replaced by the extreme value that moves it to its end, then restore it there."""
    floats = block.dtype.kind == "f"
    gaps = np.isnan(block) if floats else np.zeros(block.shape, bool) if missing is None else block == missing
    limits = (-np.inf, np.inf) if floats else _dtype_limits(block.dtype)
    filled = np.where(gaps, np.array(limits[asc == at_end], block.dtype), block)
    ordered = np.sort(filled, axis=axis)
    ordered = ordered if asc else np.flip(ordered, axis)
    if missing is None:
        return ordered
    length = block.shape[axis]
    count = gaps.sum(axis=axis, keepdims=True)
    place = np.arange(length).reshape([-1 if i == axis else 1 for i in range(block.ndim)])
    is_nodata = place >= length - count if at_end else place < count
    return np.where(is_nodata, np.array(missing, block.dtype), ordered)


def _dtype_limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    return (False, True) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)


def _order_in_cube(data: xr.DataArray, asc: bool, nodata: bool | None) -> xr.DataArray:
    decoded = with_labels(cube.decode(data), None)
    dtype = np.dtype(np.float32 if nodata is None and cube.has_nodata(data) else np.int32)
    kernel = partial(_order_blocks, asc, nodata, dtype)
    result = apply_along_array(kernel, decoded, dtype, size=data.sizes[ARRAY])
    result.attrs = {}
    return result


def _order_blocks(
    asc: bool, nodata: bool | None, dtype: np.dtype[Any], block: np.ndarray, axis: int
) -> np.ndarray:
    # argsort puts NaN last, for ascending and descending order alike.
    ranked = np.argsort(block if asc else -block, axis=axis, kind="stable").astype(dtype)
    length = block.shape[axis]
    count = np.isnan(block).sum(axis=axis, keepdims=True)
    place = np.arange(length).reshape([-1 if i == axis else 1 for i in range(block.ndim)])
    if nodata is False:
        return np.take_along_axis(ranked, (place - count) % max(length, 1), axis)
    if nodata is None and dtype.kind == "f":
        return np.where(place >= length - count, np.array(np.nan, dtype), ranked)
    return ranked


def _rearrange_pixels(values: Any, permutation: xr.DataArray) -> xr.DataArray:
    """Rearrange the elements of each pixel in its own order."""
    if isinstance(values, list) and not values:
        raise ArrayElementNotAvailable.at_index(0, 0)
    data = values if isinstance(values, xr.DataArray) else cube.stack(values)
    data, permutation = (
        with_labels(rechunk_whole_arrays(data), None),
        with_labels(rechunk_whole_arrays(permutation), None),
    )
    return apply_by_nodata(partial(_take_by_nodata, permutation), data)


def _take_by_nodata(permutation: xr.DataArray, data: xr.DataArray, missing: Any) -> xr.DataArray:
    source = cube.decode(data) if missing is None else data
    fill_value = np.nan if source.dtype.kind == "f" else missing
    rearranged = xr.apply_ufunc(
        partial(_take_blocks, fill_value),
        source.rename({ARRAY: "__from__"}),
        permutation,
        input_core_dims=[["__from__"], [ARRAY]],
        output_core_dims=[[ARRAY]],
        dask="parallelized",
        output_dtypes=[source.dtype],
        keep_attrs="override",
    )
    # The order may vary along dimensions that the values do not have.
    return rearranged.transpose(*data.dims, ...)


def _take_blocks(fill_value: Any, block: np.ndarray, permutation: np.ndarray) -> np.ndarray:
    # Positions outside the array give no-data.
    empty = ~((permutation >= 0) & (permutation < block.shape[-1]))
    if not block.shape[-1]:
        return np.full(permutation.shape, fill_value, block.dtype)
    places = np.where(empty, 0, permutation).astype(np.intp)
    shape = np.broadcast_shapes(block.shape[:-1], places.shape[:-1])
    expanded = np.broadcast_to(block, (*shape, block.shape[-1]))
    rearranged = np.take_along_axis(expanded, np.broadcast_to(places, (*shape, places.shape[-1])), axis=-1)
    return np.where(empty, np.array(fill_value, block.dtype), rearranged) if empty.any() else rearranged
