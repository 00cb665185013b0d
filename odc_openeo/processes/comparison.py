"""Comparison of values: strict on types, no-data gives no-data, NaN equals nothing.

In a cube the result is of dtype bool where no-data is impossible, else float32 with 1, 0 and NaN.
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
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.process import Example, Schema, process
from odc_openeo.processes.elementwise import any_cube, blockwise, is_boolean, labelwise, mark_boolean
from odc_openeo.processes.schemas import Boolean, BooleanField, BooleanOrNull, Comparable, Number

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
    """Whether two values are equal.

    Types are not converted: the text "1" is not equal to the number 1, nor 0 to false. Times are compared as
    texts. No-data on either side gives no-data. NaN is equal to nothing.

    Args:
        x: The first value.
        y: The second value.
        delta: The largest difference that two numbers may have and still be equal.
        case_sensitive: Whether upper and lower case letters differ.

    Returns:
        True, false or no-data.
    """
    return _equality(x, y, "eq", delta, case_sensitive)


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
    """Whether two values differ.

    The opposite of `eq`: values of different types differ, NaN differs from everything. No-data on either
    side gives no-data.

    Args:
        x: The first value.
        y: The second value.
        delta: The largest difference that two numbers may have and still count as equal.
        case_sensitive: Whether upper and lower case letters differ.

    Returns:
        True, false or no-data.
    """
    return _equality(x, y, "neq", delta, case_sensitive)


@process(
    categories=["comparison"], examples=[Example({"x": 2, "y": 1}, True), Example({"x": True, "y": 0}, False)]
)
def gt(x: Comparable, y: Comparable) -> BooleanOrNull:
    """Whether a number is greater than another.

    False if one of the values is no number. No-data on either side gives no-data.

    Args:
        x: The first value.
        y: The second value.

    Returns:
        True, false or no-data.
    """
    return _order(x, y, operator.gt, np.greater, or_equal=False)


@process(
    categories=["comparison"], examples=[Example({"x": 0, "y": 0}, True), Example({"x": 1, "y": None}, None)]
)
def gte(x: Comparable, y: Comparable) -> BooleanOrNull:
    """Whether a number is greater than another or equal to it.

    Values that are no numbers must be equal. Infinity is not ordered against itself. No-data on either side
    gives no-data.

    Args:
        x: The first value.
        y: The second value.

    Returns:
        True, false or no-data.
    """
    return _order(x, y, partial(_or_equal, operator.ge), partial(_or_equal, np.greater_equal), or_equal=True)


@process(
    categories=["comparison"], examples=[Example({"x": 1, "y": 2}, True), Example({"x": 0, "y": True}, False)]
)
def lt(x: Comparable, y: Comparable) -> BooleanOrNull:
    """Whether a number is less than another.

    False if one of the values is no number. No-data on either side gives no-data.

    Args:
        x: The first value.
        y: The second value.

    Returns:
        True, false or no-data.
    """
    return _order(x, y, operator.lt, np.less, or_equal=False)


@process(
    categories=["comparison"], examples=[Example({"x": 0, "y": 0}, True), Example({"x": None, "y": 1}, None)]
)
def lte(x: Comparable, y: Comparable) -> BooleanOrNull:
    """Whether a number is less than another or equal to it.

    Values that are no numbers must be equal. Infinity is not ordered against itself. No-data on either side
    gives no-data.

    Args:
        x: The first value.
        y: The second value.

    Returns:
        True, false or no-data.
    """
    return _order(x, y, partial(_or_equal, operator.le), partial(_or_equal, np.less_equal), or_equal=True)


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
    """Whether a number is in a range.

    The limits belong to the range. If they are swapped, no number is in it. False for what is no number,
    no-data for no-data.

    Args:
        x: The value to check.
        min: The lower limit.
        max: The upper limit.
        exclude_max: Whether the upper limit does not belong to the range.

    Returns:
        True, false or no-data.
    """
    below = np.less if exclude_max else partial(_or_equal, np.less_equal)
    values = (x, min, max)
    if any_cube(*values):
        return (
            _compare(partial(_inside, below), *values)
            if _kinds(*values) == {"number"}
            else _fixed(False, *values)
        )
    if any(v is None for v in values):
        return None
    return _kinds(*values) == {"number"} and bool(_inside(below, *values))


@process(
    categories=["comparison", "math > constants"],
    examples=[Example({"x": 1}, False), Example({"x": "NaN"}, False)],
)
def is_nan(x: Anything) -> BooleanField:
    """Whether a value is NaN.

    In cubes of floats no-data is NaN: true there too.

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
    """Whether a value is no-data.

    In JSON that is null, and NaN is not. In a cube it is the no-data value of the cube, and NaN if it holds
    floats.

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
    """Whether a value is valid data.

    Neither no-data nor NaN nor infinite. Texts, objects and arrays are valid, whatever they hold.

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
    """Whether a value is an infinite number.

    Args:
        x: The value to check.

    Returns:
        True or false; false for NaN and no-data.
    """
    if _is_field(x):
        return blockwise(np.isinf, x) if x.dtype.kind == "f" else xr.zeros_like(x, dtype=bool)
    return isinstance(x, float) and math.isinf(x)


# --- Equality and order --------------------------------------------------------------------------


def equal(x: Any, y: Any, delta: float | None = None, case_sensitive: bool = True) -> bool:
    """Whether two JSON values are equal by the rules of `eq`; null, arrays and objects equal nothing."""
    kinds = _kinds(x, y)
    if kinds == {"number"}:
        return bool(x == y) if delta is None else bool(abs(x - y) <= delta)
    if kinds == {"text"}:
        return bool(x == y) if case_sensitive else bool(x.casefold() == y.casefold())
    return kinds == {"boolean"} and x is y


def _equality(x: Any, y: Any, name: str, delta: float | None, case_sensitive: bool) -> Any:
    if delta is not None and not delta > 0:
        raise ProcessParameterInvalid(process=name, parameter="delta", reason="it must be greater than 0.")
    negate = name == "neq"
    if not any_cube(x, y):
        return None if x is None or y is None else equal(x, y, delta, case_sensitive) is not negate
    kinds = _kinds(x, y) - {"nothing"}
    if kinds == {"text"}:
        return labelwise(lambda a, b: equal(a, b, None, case_sensitive) is not negate, x, y)
    if len(kinds) > 1:
        return _fixed(negate, x, y)
    if delta is not None and kinds == {"number"}:
        return _compare(partial(_far if negate else _near, delta), x, y)
    return _compare(np.not_equal if negate else np.equal, x, y)


def _order(x: Any, y: Any, on_json: Callable[..., Any], on_blocks: Any, or_equal: bool) -> Any:
    numeric = _kinds(x, y) <= {"number", "nothing"}
    if any_cube(x, y):
        if numeric:
            return _compare(on_blocks, x, y)
        return _equality(x, y, "eq", None, True) if or_equal else _fixed(False, x, y)
    if x is None or y is None:
        return None
    return bool(on_json(x, y)) if numeric else or_equal and equal(x, y)


def _or_equal(compare: Callable[..., Any], x: Any, y: Any) -> Any:
    """Compare, but leave infinity unordered against itself, as the official test vectors want it."""
    if any(isinstance(v, int) or (isinstance(v, float) and math.isfinite(v)) for v in (x, y)):
        return compare(x, y)
    return np.logical_and(compare(x, y), ~(np.isinf(x) & np.equal(x, y)))


def _kinds(*values: Any) -> set[str]:
    return {_kind(v) for v in values}


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if is_boolean(value):
        return "boolean"
    if isinstance(value, str) or (isinstance(value, xr.DataArray) and value.dtype.kind in "OUT"):
        return "text"
    if isinstance(value, xr.DataArray | int | float):
        return "number"
    return f"other: {type(value).__name__}"


def _near(delta: float, x: Any, y: Any) -> Any:
    return np.abs(np.subtract(x, y)) <= delta


def _far(delta: float, x: Any, y: Any) -> Any:
    return ~(np.abs(np.subtract(x, y)) <= delta)


def _inside(below: Any, x: Any, low: Any, high: Any) -> Any:
    return _or_equal(np.greater_equal, x, low) & below(x, high)


# --- Cubes ---------------------------------------------------------------------------------------


def _is_field(x: Any) -> bool:
    """Whether the value is one a pixel; an array in a cube is an array, which has no special values."""
    return isinstance(x, xr.DataArray) and ARRAY not in x.dims


def _compare(function: Any, *values: Any) -> xr.DataArray:
    """Compare cubes and scalars with a numpy function; no-data on any side gives no-data."""
    certain = all(v is not None and not (isinstance(v, xr.DataArray) and cube.has_nodata(v)) for v in values)
    subtracts = isinstance(function, partial) and function.func in (_near, _far)
    if certain and not subtracts:
        result = blockwise(function, *(_without_attributes(v) for v in values))
        return result.astype(bool, copy=False)
    operands = [_decoded(v) for v in values]
    return mark_boolean(blockwise(partial(_with_nodata, function, any(v is None for v in values)), *operands))


def _fixed(value: bool, *values: Any) -> xr.DataArray:
    """The same answer everywhere but where there is no data."""
    return _compare(
        partial(_always, value), *(v if isinstance(v, xr.DataArray) or v is None else 0 for v in values)
    )


def _always(value: bool, *blocks: Any) -> Any:
    return np.full(np.broadcast_shapes(*(np.shape(b) for b in blocks)), value)


def _decoded(value: Any) -> Any:
    if isinstance(value, xr.DataArray):
        return _without_attributes(cube.decode(value))
    return np.nan if value is None else value


def _without_attributes(value: Any) -> Any:
    if not isinstance(value, xr.DataArray):
        return value
    return value.drop_vars(cube.NODATA, errors="ignore").drop_attrs(deep=False)


def _with_nodata(function: Any, nothing: bool, *blocks: Any) -> Any:
    # A scalar NaN is a value and compares as one; NaN in a cube is no-data.
    missing = [np.isnan(b) for b in blocks if isinstance(b, np.ndarray | np.generic)]
    result = np.asarray(function(*blocks)).astype(np.float32)
    for where in missing:
        result = np.where(where | nothing, np.float32(np.nan), result)
    return result
