"""Three-valued logic: true, false and no-data, for JSON booleans and cubes of booleans.

A cube of booleans has dtype bool where no-data is impossible; else it is float32 with 1, 0 and NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.process import DEFERRED, Example, Schema, process
from odc_openeo.processes.elementwise import any_cube, blockwise, is_boolean, mark_boolean, no_data_like
from odc_openeo.processes.schemas import ANY_JSON, AnyValue, Boolean, BooleanOrNull, Booleans
from odc_openeo.processes.sequences import booleans, constant_field, reduce_blocks

Later = Callable[[], Any]
LaterBoolean = Annotated[Later, Schema({"type": ["boolean", "null"]}), DEFERRED]
LaterValue = Annotated[Later | None, Schema(ANY_JSON), DEFERRED]


@process(
    categories=["logic"],
    examples=[
        Example({"x": True, "y": True}, True),
        Example({"x": False, "y": None}, False),
        Example({"x": True, "y": None}, None),
    ],
)
def and_(x: BooleanOrNull, y: LaterBoolean) -> BooleanOrNull:
    """Whether both values are true.

    False if one is false; else no-data if one is no-data. `y` is not evaluated if `x` is false (in a cube it
    always is).

    Args:
        x: The first value.
        y: The second value.

    Returns:
        True, false or no-data.
    """
    if x is False:
        return False
    return _combine("and", np.logical_and, _and_blocks, x, _now(y))


@process(
    categories=["logic"],
    examples=[
        Example({"x": True, "y": None}, True),
        Example({"x": False, "y": False}, False),
        Example({"x": False, "y": None}, None),
    ],
)
def or_(x: BooleanOrNull, y: LaterBoolean) -> BooleanOrNull:
    """Whether one value at least is true.

    True if one is true; else no-data if one is no-data. `y` is not evaluated if `x` is true (in a cube it
    always is).

    Args:
        x: The first value.
        y: The second value.

    Returns:
        True, false or no-data.
    """
    if x is True:
        return True
    return _combine("or", np.logical_or, _or_blocks, x, _now(y))


@process(
    categories=["logic"],
    examples=[
        Example({"x": True, "y": True}, False),
        Example({"x": True, "y": False}, True),
        Example({"x": False, "y": None}, None),
    ],
)
def xor(x: BooleanOrNull, y: BooleanOrNull) -> BooleanOrNull:
    """Whether exactly one value is true.

    No-data if one is no-data.

    Args:
        x: The first value.
        y: The second value.

    Returns:
        True, false or no-data.
    """
    return _combine("xor", np.logical_xor, _xor_blocks, x, y)


@process(
    categories=["logic"],
    examples=[Example({"x": True}, False), Example({"x": False}, True), Example({"x": None}, None)],
)
def not_(x: BooleanOrNull) -> BooleanOrNull:
    """The opposite of a boolean.

    True becomes false, false becomes true, no-data stays no-data.

    Args:
        x: A boolean.

    Returns:
        The opposite.
    """
    if isinstance(x, xr.DataArray):
        return (
            blockwise(np.logical_not, x)
            if x.dtype == bool
            else mark_boolean(blockwise(_not_blocks, truth(x)))
        )
    return None if x is None else not _boolean(x, "not", "x")


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
    """Whether one element at least is true.

    False for an empty array.

    Args:
        data: Booleans.
        ignore_nodata: Leave no-data out. If false, no-data among values none of which is true gives no-data.

    Returns:
        True, false or no-data.
    """
    values = booleans(data, "any")
    if isinstance(values, xr.DataArray):
        return _reduce(values, ignore_nodata, np.any, _any_blocks, False)
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
    """Whether all elements are true.

    True for an empty array.

    Args:
        data: Booleans.
        ignore_nodata: Leave no-data out. If false, no-data among values none of which is false gives no-data.

    Returns:
        True, false or no-data.
    """
    values = booleans(data, "all")
    if isinstance(values, xr.DataArray):
        return _reduce(values, ignore_nodata, np.all, _all_blocks, True)
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
)
def if_(value: BooleanOrNull, accept: LaterValue, reject: LaterValue = None) -> AnyValue:
    """Choose between two values.

    Gives `accept` where `value` is true, else `reject`. Only the value that is chosen is evaluated. If
    `value` is a cube of booleans both are, and each pixel gets its own choice.

    Args:
        value: A boolean. No-data counts as false.
        accept: The value if true.
        reject: The value if false or no-data.

    Returns:
        One of both values.
    """
    if isinstance(value, xr.DataArray):
        return _choose(value, _now(accept), _now(reject))
    return _now(accept) if value is not None and _boolean(value, "if", "value") else _now(reject)


# --- Cubes ---------------------------------------------------------------------------------------


def truth(value: Any) -> Any:
    """A boolean or cube as floats: 1 for true (any number but 0), 0 for false, NaN for no-data."""
    if isinstance(value, xr.DataArray):
        return blockwise(_truth_blocks, cube.decode(value))
    return np.nan if value is None else float(value)


def _truth_blocks(block: Any) -> Any:
    return np.where(np.isnan(block), np.float32(np.nan), (block != 0).astype(np.float32))


def _now(value: Any) -> Any:
    return value() if callable(value) else value


def _boolean(value: Any, process: str, parameter: str) -> bool:
    if not isinstance(value, bool):
        reason = f"it must be a boolean or null; {value!r:.60} is neither."
        raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
    return value


def _combine(name: str, certain: Any, uncertain: Any, x: Any, y: Any) -> Any:
    """Combine two booleans: ``certain`` where no-data is impossible, ``uncertain`` on `truth` otherwise."""
    for parameter, value in (("x", x), ("y", y)):
        if value is not None and not isinstance(value, xr.DataArray):
            _boolean(value, name, parameter)
    if not any_cube(x, y):
        result = uncertain(np.float32(truth(x)), np.float32(truth(y)))
        return None if np.isnan(result) else bool(result)
    if all(isinstance(v, bool) or (isinstance(v, xr.DataArray) and v.dtype == bool) for v in (x, y)):
        return blockwise(certain, x, y)
    return mark_boolean(blockwise(uncertain, truth(x), truth(y)))


def _and_blocks(x: Any, y: Any) -> Any:
    return np.where((x == 0) | (y == 0), np.float32(0), _missing(x, y, 1))


def _or_blocks(x: Any, y: Any) -> Any:
    return np.where((x == 1) | (y == 1), np.float32(1), _missing(x, y, 0))


def _xor_blocks(x: Any, y: Any) -> Any:
    return np.where(x != y, _missing(x, y, 1), _missing(x, y, 0))


def _not_blocks(x: Any) -> Any:
    return np.float32(1) - x


def _missing(x: Any, y: Any, otherwise: int) -> Any:
    return np.where(np.isnan(x) | np.isnan(y), np.float32(np.nan), np.float32(otherwise))


def _reduce(
    data: xr.DataArray, ignore_nodata: bool, certain: Any, uncertain: Any, empty: bool
) -> xr.DataArray:
    if data.sizes[ARRAY] == 0:
        return constant_field(data, empty, bool)
    if data.dtype == bool:
        return reduce_blocks(certain, data, bool)
    if ignore_nodata:
        known = truth(data)
        return reduce_blocks(certain, known == 1 if not empty else known != 0, bool)
    return mark_boolean(reduce_blocks(uncertain, truth(data), np.float32))


def _any_blocks(block: Any, axis: Any, keepdims: bool) -> Any:
    unknown = np.isnan(block).any(axis=axis, keepdims=keepdims)
    found = (block == 1).any(axis=axis, keepdims=keepdims)
    return np.where(found, np.float32(1), np.where(unknown, np.float32(np.nan), np.float32(0)))


def _all_blocks(block: Any, axis: Any, keepdims: bool) -> Any:
    unknown = np.isnan(block).any(axis=axis, keepdims=keepdims)
    refuted = (block == 0).any(axis=axis, keepdims=keepdims)
    return np.where(refuted, np.float32(0), np.where(unknown, np.float32(np.nan), np.float32(1)))


# --- Choice a pixel ------------------------------------------------------------------------------


def _choose(value: xr.DataArray, accept: Any, reject: Any) -> xr.DataArray:
    condition = value if value.dtype == bool else blockwise(_is_true, truth(value))
    accept, reject = (cube.stack(v) if isinstance(v, list | tuple) else v for v in (accept, reject))
    accept, reject = _branches(accept, reject)
    chosen = blockwise(np.where, condition, accept, reject)
    chosen.attrs = next((dict(v.attrs) for v in (accept, reject) if isinstance(v, xr.DataArray)), {})
    return chosen


def _is_true(block: Any) -> Any:
    return block == 1


def _branches(accept: Any, reject: Any) -> tuple[Any, Any]:
    """Both values of a choice as arrays or scalars of one kind; the dtype and no-data of cubes are kept."""
    cubes: list[Any] = [v for v in (accept, reject) if isinstance(v, xr.DataArray)]
    if len(cubes) == 2:
        same = cube.same_nodata(accept, reject)
        return (accept, reject) if same else (cube.decode(accept), cube.decode(reject))
    if not cubes:
        return _scalars(accept, reject)
    other = accept if cubes[0] is reject else reject
    if other is None and cube.has_nodata(cubes[0]):
        filled: Any = no_data_like(cubes[0])
    elif isinstance(other, bool) and is_boolean(cubes[0]):
        return accept, reject
    else:
        cubes[0], filled = cube.decode(cubes[0]), np.nan if other is None else other
    return (filled, cubes[0]) if other is accept else (cubes[0], filled)


def _scalars(accept: Any, reject: Any) -> tuple[Any, Any]:
    values = [np.nan if v is None else v for v in (accept, reject)]
    kinds = {type(v) for v in (accept, reject) if v is not None}
    if kinds == {bool} and None not in (accept, reject):
        return accept, reject
    if not kinds <= {bool, int, float}:
        return accept, reject
    exact = all(np.isnan(v) or float(np.float32(v)) == v for v in values)
    dtype = np.float32 if exact else np.float64
    return dtype(values[0]), dtype(values[1])
