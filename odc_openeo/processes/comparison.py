"""Comparison of values: strict on types, no-data gives no-data, NaN equals nothing.

In a cube the result has dtype bool if no-data is impossible, otherwise float32 with 1, 0 and NaN.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY
from odc_openeo.cube.elementwise import blockwise, has_cube, is_boolean, labelwise, mark_boolean
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.registry.process import Example, Schema, process
from odc_openeo.registry.schemas import Boolean, BooleanField, BooleanOrNull, Comparable, Number

Delta = Annotated[float | None, Schema({"type": ["number", "null"], "minimumExclusive": 0})]
Anything = Annotated[Any, Schema({"description": "Any data type is allowed."})]


@process(
    categories=["texts", "comparison"],
    examples=[
        Example({"x": 1, "y": None}, None),
        Example({"x": 1, "y": "1"}, False),
        Example({"x": 0, "y": False}, False),
        Example({"x": 1.02, "y": 1, "delta": 0.01}, False),
        Example({"x": "Ä", "y": "ä", "case_sensitive": False}, True),
    ],
)
def eq(x: Comparable, y: Comparable, delta: Delta = None, case_sensitive: Boolean = True) -> BooleanOrNull:
    """Check whether two values are equal.

    Types are not converted: the string "1" does not equal the number 1, and 0 does not equal false. Times are
    compared as strings. No-data on either side gives no-data. NaN does not equal anything.

    Args:
        x: The first value.
        y: The second value.
        delta: The largest difference that two numbers may have and still count as equal.
        case_sensitive: Whether to distinguish upper-case and lower-case letters.

    Returns:
        True, false or no-data.
    """
    return _compare_equality(x, y, "eq", delta, case_sensitive)


@process(
    categories=["texts", "comparison"],
    examples=[
        Example({"x": 1, "y": None}, None),
        Example({"x": 1, "y": "1"}, True),
        Example({"x": 1, "y": 1}, False),
        Example({"x": 115, "y": 110, "delta": 10}, False),
    ],
)
def neq(x: Comparable, y: Comparable, delta: Delta = None, case_sensitive: Boolean = True) -> BooleanOrNull:
    """Check whether two values differ.

    The opposite of `eq`: values of different types differ, and NaN differs from everything. No-data on either
    side gives no-data.

    Args:
        x: The first value.
        y: The second value.
        delta: The largest difference that two numbers may have and still count as equal.
        case_sensitive: Whether to distinguish upper-case and lower-case letters.

    Returns:
        True, false or no-data.
    """
    return _compare_equality(x, y, "neq", delta, case_sensitive)


@process(
    categories=["comparison"], examples=[Example({"x": 2, "y": 1}, True), Example({"x": True, "y": 0}, False)]
)
def gt(x: Comparable, y: Comparable) -> BooleanOrNull:
    """Check whether a number is greater than another.

    False if one of the values is not a number. No-data on either side gives no-data.

    Args:
        x: The first value.
        y: The second value.

    Returns:
        True, false or no-data.
    """
    return _compare_order(x, y, operator.gt, np.greater, or_equal=False)


@process(
    categories=["comparison"], examples=[Example({"x": 0, "y": 0}, True), Example({"x": 1, "y": None}, None)]
)
def gte(x: Comparable, y: Comparable) -> BooleanOrNull:
    """Check whether a number is greater than or equal to another.

    Values that are not numbers must be equal. Infinity equals itself (IEEE 754). No-data on either side gives
    no-data.

    Args:
        x: The first value.
        y: The second value.

    Returns:
        True, false or no-data.
    """
    return _compare_order(x, y, operator.ge, np.greater_equal, or_equal=True)


@process(
    categories=["comparison"], examples=[Example({"x": 1, "y": 2}, True), Example({"x": 0, "y": True}, False)]
)
def lt(x: Comparable, y: Comparable) -> BooleanOrNull:
    """Check whether a number is less than another.

    False if one of the values is not a number. No-data on either side gives no-data.

    Args:
        x: The first value.
        y: The second value.

    Returns:
        True, false or no-data.
    """
    return _compare_order(x, y, operator.lt, np.less, or_equal=False)


@process(
    categories=["comparison"], examples=[Example({"x": 0, "y": 0}, True), Example({"x": None, "y": 1}, None)]
)
def lte(x: Comparable, y: Comparable) -> BooleanOrNull:
    """Check whether a number is less than or equal to another.

    Values that are not numbers must be equal. Infinity equals itself (IEEE 754). No-data on either side gives
    no-data.

    Args:
        x: The first value.
        y: The second value.

    Returns:
        True, false or no-data.
    """
    return _compare_order(x, y, operator.le, np.less_equal, or_equal=True)


@process(
    categories=["comparison"],
    examples=[
        Example({"x": 1, "min": 0, "max": 1}, True),
        Example({"x": 1, "min": 0, "max": 1, "exclude_max": True}, False),
        Example({"x": 0.5, "min": 1, "max": 0}, False),
        Example({"x": None, "min": 0, "max": 1}, None),
    ],
)
def between(x: Anything, min: Number, max: Number, exclude_max: Boolean = False) -> BooleanOrNull:
    """Check whether a number is within a range.

    The range includes its limits. If they are swapped, no number is within it. False for values that are not
    numbers, no-data for no-data.

    Args:
        x: The value to check.
        min: The lower limit.
        max: The upper limit.
        exclude_max: Whether to exclude the upper limit from the range.

    Returns:
        True, false or no-data.
    """
    is_below = np.less if exclude_max else np.less_equal
    values = (x, min, max)
    if has_cube(*values):
        return (
            _compare_cubes(partial(_is_in_range, is_below), *values)
            if _get_kinds(*values) == {"number"}
            else _constant_result(False, *values)
        )
    if any(v is None for v in values):
        return None
    return _get_kinds(*values) == {"number"} and bool(_is_in_range(is_below, *values))


@process(
    categories=["comparison", "math > constants"],
    examples=[Example({"x": 1}, False), Example({"x": "NaN"}, False)],
)
def is_nan(x: Anything) -> BooleanField:
    """Check whether a value is NaN.

    In cubes of floats no-data is NaN, so the result is true for no-data too.

    Args:
        x: The value to check.

    Returns:
        True or false.
    """
    if _is_field(x):
        return blockwise(np.isnan, x) if x.dtype.kind == "f" else xr.zeros_like(x, dtype=bool)
    return isinstance(x, float) and math.isnan(x)


@process(
    categories=["comparison"],
    examples=[Example({"x": 1}, False), Example({"x": None}, True), Example({"x": [None, None]}, False)],
)
def is_nodata(x: Anything) -> BooleanField:
    """Check whether a value is no-data.

    In JSON, null is no-data and NaN is not. In a cube, no-data is the no-data value of the cube, and NaN if
    the cube holds floats.

    Args:
        x: The value to check.

    Returns:
        True or false.
    """
    if _is_field(x):
        return blockwise(np.logical_not, cube.valid(x))
    return x is None


@process(
    categories=["comparison"],
    examples=[Example({"x": 1}, True), Example({"x": None}, False), Example({"x": [None, None]}, True)],
)
def is_valid(x: Anything) -> BooleanField:
    """Check whether a value is valid data.

    Valid values are neither no-data nor NaN nor infinite. Strings, objects and arrays are always valid.

    Args:
        x: The value to check.

    Returns:
        True or false.
    """
    if _is_field(x):
        return blockwise(np.isfinite, x) if x.dtype.kind == "f" else cube.valid(x)
    return x is not None and not (isinstance(x, float) and not math.isfinite(x))


@process(
    categories=["comparison"],
    examples=[Example({"x": 1}, False), Example({"x": "inf"}, False)],
    experimental=True,
)
def is_infinite(x: Anything) -> BooleanField:
    """Check whether a value is an infinite number.

    Args:
        x: The value to check.

    Returns:
        True or false; false for NaN and no-data.
    """
    if _is_field(x):
        return blockwise(np.isinf, x) if x.dtype.kind == "f" else xr.zeros_like(x, dtype=bool)
    return isinstance(x, float) and math.isinf(x)


# --- Equality and order --------------------------------------------------------------------------


def are_equal(x: Any, y: Any, delta: float | None = None, case_sensitive: bool = True) -> bool:
    """Return whether two JSON values are equal by the rules of `eq`; null, arrays and objects never are."""
    kinds = _get_kinds(x, y)
    if kinds == {"number"}:
        # The difference of two infinities is NaN.
        return bool(x == y) or (delta is not None and bool(abs(x - y) <= delta))
    if kinds == {"string"}:
        return bool(x == y) if case_sensitive else bool(x.casefold() == y.casefold())
    return kinds == {"boolean"} and x is y


def _compare_equality(x: Any, y: Any, name: str, delta: float | None, case_sensitive: bool) -> Any:
    if delta is not None and not delta > 0:
        raise ProcessParameterInvalid(process=name, parameter="delta", reason="it must be greater than 0.")
    negate = name == "neq"
    if not has_cube(x, y):
        return None if x is None or y is None else are_equal(x, y, delta, case_sensitive) is not negate
    kinds = _get_kinds(x, y) - {"null"}
    if kinds == {"string"}:
        return labelwise(lambda a, b: are_equal(a, b, None, case_sensitive) is not negate, x, y)
    if len(kinds) > 1:
        return _constant_result(negate, x, y)
    if delta is not None and kinds == {"number"}:
        return _compare_cubes(partial(_is_far if negate else _is_near, delta), x, y)
    return _compare_cubes(np.not_equal if negate else np.equal, x, y)


def _compare_order(x: Any, y: Any, on_json: Callable[..., Any], on_blocks: Any, or_equal: bool) -> Any:
    numeric = _get_kinds(x, y) <= {"number", "null"}
    if has_cube(x, y):
        if numeric:
            return _compare_cubes(on_blocks, x, y)
        return _compare_equality(x, y, "eq", None, True) if or_equal else _constant_result(False, x, y)
    if x is None or y is None:
        return None
    return bool(on_json(x, y)) if numeric else or_equal and are_equal(x, y)


def _get_kinds(*values: Any) -> set[str]:
    return {_get_kind(v) for v in values}


def _get_kind(value: Any) -> str:
    if value is None:
        return "null"
    if is_boolean(value):
        return "boolean"
    if isinstance(value, str) or (isinstance(value, xr.DataArray) and value.dtype.kind in "OUT"):
        return "string"
    if isinstance(value, xr.DataArray | int | float):
        return "number"
    return f"other: {type(value).__name__}"


def _is_near(delta: float, x: Any, y: Any) -> Any:
    return np.equal(x, y) | (np.abs(np.subtract(x, y)) <= delta)


def _is_far(delta: float, x: Any, y: Any) -> Any:
    return ~_is_near(delta, x, y)


def _is_in_range(is_below: Any, x: Any, low: Any, high: Any) -> Any:
    return np.greater_equal(x, low) & is_below(x, high)


# --- Cubes ---------------------------------------------------------------------------------------


def _is_field(x: Any) -> bool:
    """Return whether the value is a cube with one value per pixel, rather than an array of values."""
    return isinstance(x, xr.DataArray) and ARRAY not in x.dims


def _compare_cubes(function: Any, *values: Any) -> xr.DataArray:
    """Compare cubes and scalars with a numpy function; no-data on any side gives no-data."""
    without_nodata = all(
        v is not None and not (isinstance(v, xr.DataArray) and cube.has_nodata(v)) for v in values
    )
    subtracts = isinstance(function, partial) and function.func in (_is_near, _is_far)
    if without_nodata and not subtracts:
        result = blockwise(function, *(_without_attributes(v) for v in values))
        return result.astype(bool, copy=False)
    operands = [_decode_operand(v) for v in values]
    return mark_boolean(
        blockwise(partial(_compare_with_nodata, function, any(v is None for v in values)), *operands)
    )


def _constant_result(value: bool, *values: Any) -> xr.DataArray:
    """Return the value everywhere except where an operand is no-data."""
    return _compare_cubes(
        partial(_fill_blocks, value), *(v if isinstance(v, xr.DataArray) or v is None else 0 for v in values)
    )


def _fill_blocks(value: bool, *blocks: Any) -> Any:
    return np.full(np.broadcast_shapes(*(np.shape(b) for b in blocks)), value)


def _decode_operand(value: Any) -> Any:
    if isinstance(value, xr.DataArray):
        return _without_attributes(cube.decode(value))
    return np.nan if value is None else value


def _without_attributes(value: Any) -> Any:
    if not isinstance(value, xr.DataArray):
        return value
    return value.drop_vars(cube.NODATA, errors="ignore").drop_attrs(deep=False)


def _compare_with_nodata(function: Any, any_null: bool, *blocks: Any) -> Any:
    # A scalar NaN is a value and compares as one; NaN in a cube is no-data.
    missing = [np.isnan(b) for b in blocks if isinstance(b, np.ndarray | np.generic)]
    result = np.asarray(function(*blocks)).astype(np.float32)
    for is_missing in missing:
        result = np.where(is_missing | any_null, np.float32(np.nan), result)
    return result
