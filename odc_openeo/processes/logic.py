"""Three-valued logic: true, false and no-data, for JSON booleans and cubes of booleans.

A cube of booleans has dtype bool if no-data is impossible; otherwise it is float32 with 1, 0 and NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY
from odc_openeo.cube.arrays import as_booleans, make_constant_field, reduce_blocks
from odc_openeo.cube.elementwise import (
    blockwise,
    drop_boolean_mark,
    has_cube,
    is_boolean,
    make_nodata_like,
    mark_boolean,
)
from odc_openeo.cube.packing import carry_packing
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.registry.process import DEFERRED, Example, Schema, process
from odc_openeo.registry.schemas import ANY_JSON, AnyValue, Boolean, BooleanOrNull, Booleans

Deferred = Callable[[], Any]
DeferredBoolean = Annotated[Deferred, Schema({"type": ["boolean", "null"]}), DEFERRED]
DeferredValue = Annotated[Deferred | None, Schema(ANY_JSON), DEFERRED]


@process(
    categories=["logic"],
    examples=[
        Example({"x": True, "y": True}, True),
        Example({"x": False, "y": None}, False),
        Example({"x": True, "y": None}, None),
    ],
)
def and_(x: BooleanOrNull, y: DeferredBoolean) -> BooleanOrNull:
    """Check whether both values are true.

    False if one value is false; otherwise no-data if one is no-data. `y` is not evaluated if `x` is false (in
    a cube it always is).

    Args:
        x: The first value.
        y: The second value.

    Returns:
        True, false or no-data.
    """
    if x is False:
        return False
    return _combine_booleans("and", np.logical_and, _and_blocks, x, _evaluate_deferred(y))


@process(
    categories=["logic"],
    examples=[
        Example({"x": True, "y": None}, True),
        Example({"x": False, "y": False}, False),
        Example({"x": False, "y": None}, None),
    ],
)
def or_(x: BooleanOrNull, y: DeferredBoolean) -> BooleanOrNull:
    """Check whether at least one value is true.

    True if one value is true; otherwise no-data if one is no-data. `y` is not evaluated if `x` is true (in a
    cube it always is).

    Args:
        x: The first value.
        y: The second value.

    Returns:
        True, false or no-data.
    """
    if x is True:
        return True
    return _combine_booleans("or", np.logical_or, _or_blocks, x, _evaluate_deferred(y))


@process(
    categories=["logic"],
    examples=[
        Example({"x": True, "y": True}, False),
        Example({"x": True, "y": False}, True),
        Example({"x": False, "y": None}, None),
    ],
)
def xor(x: BooleanOrNull, y: BooleanOrNull) -> BooleanOrNull:
    """Check whether exactly one value is true.

    No-data if one value is no-data.

    Args:
        x: The first value.
        y: The second value.

    Returns:
        True, false or no-data.
    """
    return _combine_booleans("xor", np.logical_xor, _xor_blocks, x, y)


@process(
    categories=["logic"],
    examples=[Example({"x": True}, False), Example({"x": False}, True), Example({"x": None}, None)],
)
def not_(x: BooleanOrNull) -> BooleanOrNull:
    """Invert a boolean.

    True becomes false, false becomes true, no-data stays no-data.

    Args:
        x: A boolean.

    Returns:
        The inverted boolean.
    """
    if isinstance(x, xr.DataArray):
        return (
            blockwise(np.logical_not, x)
            if x.dtype == bool
            else mark_boolean(blockwise(_not_blocks, to_truth_values(x)))
        )
    return None if x is None else not _require_boolean(x, "not", "x")


@process(
    categories=["logic", "reducer"],
    examples=[
        Example({"data": [False, None]}, False),
        Example({"data": [True, None]}, True),
        Example({"data": [False, None], "ignore_nodata": False}, None),
        Example({"data": []}, False),
    ],
)
def any_(data: Booleans, ignore_nodata: Boolean = True) -> BooleanOrNull:
    """Check whether at least one element is true.

    False for an empty array.

    Args:
        data: Booleans.
        ignore_nodata: Ignore no-data. If false, the result is no-data if there is no-data and no element is
            true.

    Returns:
        True, false or no-data.
    """
    values = as_booleans(data, "any")
    if isinstance(values, xr.DataArray):
        return _reduce_booleans(values, ignore_nodata, np.any, _any_blocks, False)
    if True in values:
        return True
    return None if None in values and not ignore_nodata else False


@process(
    categories=["logic", "reducer"],
    examples=[
        Example({"data": [False, None]}, False),
        Example({"data": [True, None]}, True),
        Example({"data": [True, None], "ignore_nodata": False}, None),
        Example({"data": []}, True),
    ],
)
def all_(data: Booleans, ignore_nodata: Boolean = True) -> BooleanOrNull:
    """Check whether all elements are true.

    True for an empty array.

    Args:
        data: Booleans.
        ignore_nodata: Ignore no-data. If false, the result is no-data if there is no-data and no element is
            false.

    Returns:
        True, false or no-data.
    """
    values = as_booleans(data, "all")
    if isinstance(values, xr.DataArray):
        return _reduce_booleans(values, ignore_nodata, np.all, _all_blocks, True)
    if False in values:
        return False
    return None if None in values and not ignore_nodata else True


@process(
    categories=["logic", "comparison", "masks"],
    examples=[
        Example({"value": True, "accept": "A", "reject": "B"}, "A"),
        Example({"value": None, "accept": "A", "reject": "B"}, "B"),
        Example({"value": False, "accept": 1}, None),
    ],
    raw_values_of=None,
)
def if_(value: BooleanOrNull, accept: DeferredValue, reject: DeferredValue = None) -> AnyValue:
    """Choose between two values.

    Returns `accept` if `value` is true, otherwise `reject`. Only the value returned is evaluated. If `value`
    is a cube of booleans, both are evaluated and the choice is made for each pixel.

    Args:
        value: A boolean. No-data counts as false.
        accept: The result if `value` is true.
        reject: The result if `value` is false or no-data.

    Returns:
        One of the two values.
    """
    if isinstance(value, xr.DataArray):
        return _choose_per_pixel(value, _evaluate_deferred(accept), _evaluate_deferred(reject))
    return (
        _evaluate_deferred(accept)
        if value is not None and _require_boolean(value, "if", "value")
        else _evaluate_deferred(reject)
    )


# --- Cubes ---------------------------------------------------------------------------------------


def to_truth_values(value: Any) -> Any:
    """Convert a boolean or cube to floats: 1 for true (any number but 0), 0 for false, NaN for no-data."""
    if isinstance(value, xr.DataArray):
        return blockwise(_to_truth_blocks, cube.decode(value))
    return np.nan if value is None else float(value)


def _to_truth_blocks(block: Any) -> Any:
    return np.where(np.isnan(block), np.float32(np.nan), (block != 0).astype(np.float32))


def _evaluate_deferred(value: Any) -> Any:
    return value() if callable(value) else value


def _require_boolean(value: Any, process: str, parameter: str) -> bool:
    if not isinstance(value, bool):
        reason = f"it must be a boolean or null, not {value!r:.60}."
        raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
    return value


def _combine_booleans(name: str, without_nodata: Any, with_nodata: Any, x: Any, y: Any) -> Any:
    """Combine two booleans: ``certain`` where no-data is impossible, ``uncertain`` on `truth` otherwise."""
    for parameter, value in (("x", x), ("y", y)):
        if value is not None and not isinstance(value, xr.DataArray):
            _require_boolean(value, name, parameter)
    if not has_cube(x, y):
        result = with_nodata(np.float32(to_truth_values(x)), np.float32(to_truth_values(y)))
        return None if np.isnan(result) else bool(result)
    if all(isinstance(v, bool) or (isinstance(v, xr.DataArray) and v.dtype == bool) for v in (x, y)):
        return blockwise(without_nodata, x, y)
    return mark_boolean(blockwise(with_nodata, to_truth_values(x), to_truth_values(y)))


def _and_blocks(x: Any, y: Any) -> Any:
    return np.where((x == 0) | (y == 0), np.float32(0), _nodata_or(x, y, 1))


def _or_blocks(x: Any, y: Any) -> Any:
    return np.where((x == 1) | (y == 1), np.float32(1), _nodata_or(x, y, 0))


def _xor_blocks(x: Any, y: Any) -> Any:
    return np.where(x != y, _nodata_or(x, y, 1), _nodata_or(x, y, 0))


def _not_blocks(x: Any) -> Any:
    return np.float32(1) - x


def _nodata_or(x: Any, y: Any, otherwise: int) -> Any:
    return np.where(np.isnan(x) | np.isnan(y), np.float32(np.nan), np.float32(otherwise))


def _reduce_booleans(
    data: xr.DataArray, ignore_nodata: bool, without_nodata: Any, with_nodata: Any, empty: bool
) -> xr.DataArray:
    if data.sizes[ARRAY] == 0:
        return make_constant_field(data, empty, bool)
    if data.dtype == bool:
        return reduce_blocks(without_nodata, data, bool)
    if ignore_nodata:
        truth_values = to_truth_values(data)
        return reduce_blocks(without_nodata, truth_values == 1 if not empty else truth_values != 0, bool)
    return mark_boolean(reduce_blocks(with_nodata, to_truth_values(data), np.float32))


def _any_blocks(block: Any, axis: Any, keepdims: bool) -> Any:
    any_nodata = np.isnan(block).any(axis=axis, keepdims=keepdims)
    any_true = (block == 1).any(axis=axis, keepdims=keepdims)
    return np.where(any_true, np.float32(1), np.where(any_nodata, np.float32(np.nan), np.float32(0)))


def _all_blocks(block: Any, axis: Any, keepdims: bool) -> Any:
    any_nodata = np.isnan(block).any(axis=axis, keepdims=keepdims)
    any_false = (block == 0).any(axis=axis, keepdims=keepdims)
    return np.where(any_false, np.float32(0), np.where(any_nodata, np.float32(np.nan), np.float32(1)))


# --- Choice per pixel ----------------------------------------------------------------------------


def _choose_per_pixel(value: xr.DataArray, accept: Any, reject: Any) -> xr.DataArray:
    condition = value if value.dtype == bool else blockwise(_is_true, to_truth_values(value))
    accept, reject = (cube.stack(v) if isinstance(v, list | tuple) else v for v in (accept, reject))
    chosen = [v for v in (accept, reject) if isinstance(v, xr.DataArray)]
    accept, reject = _align_branches(accept, reject)
    result = blockwise(np.where, condition, accept, reject)
    result.attrs = next((dict(v.attrs) for v in (accept, reject) if isinstance(v, xr.DataArray)), {})
    are_boolean = all(v is None or is_boolean(v) for v in (accept, reject))
    return carry_packing(result if are_boolean else drop_boolean_mark(result), chosen)


def _is_true(block: Any) -> Any:
    return block == 1


def _align_branches(accept: Any, reject: Any) -> tuple[Any, Any]:
    """Convert both values of a choice to a common type; the dtype and no-data value of cubes are kept."""
    cubes: list[Any] = [v for v in (accept, reject) if isinstance(v, xr.DataArray)]
    if len(cubes) == 2:
        same_nodata = cube.has_same_nodata(accept, reject)
        return (accept, reject) if same_nodata else (cube.decode(accept), cube.decode(reject))
    if not cubes:
        return _align_scalar_branches(accept, reject)
    other = accept if cubes[0] is reject else reject
    if other is None and cube.has_nodata(cubes[0]):
        replacement: Any = make_nodata_like(cubes[0])
    elif isinstance(other, bool) and is_boolean(cubes[0]):
        return accept, reject
    else:
        cubes[0], replacement = cube.decode(cubes[0]), np.nan if other is None else other
    return (replacement, cubes[0]) if other is accept else (cubes[0], replacement)


def _align_scalar_branches(accept: Any, reject: Any) -> tuple[Any, Any]:
    values = [np.nan if v is None else v for v in (accept, reject)]
    types = {type(v) for v in (accept, reject) if v is not None}
    if types == {bool} and None not in (accept, reject):
        return accept, reject
    if not types <= {bool, int, float}:
        return accept, reject
    fits_float32 = all(np.isnan(v) or float(np.float32(v)) == v for v in values)
    dtype = np.float32 if fits_float32 else np.float64
    return dtype(values[0]), dtype(values[1])
