"""Reducers: compute one value from an array of numbers, or of any values (first, last, count).

No-data is ignored by default; in JSON arrays no-data is null, while NaN is a value and makes the result
NaN. In cubes, sums are computed in 64-bit floats whatever the dtype, and reducers that select a value (min,
max, first, last, extrema) keep integers and their no-data value.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

import dask.array as da
import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY
from odc_openeo.cube.arrays import (
    apply_along_array,
    apply_by_nodata,
    as_numbers,
    as_sequence,
    make_constant_field,
    make_field,
    reduce_blocks,
)
from odc_openeo.cube.budget import check_count
from odc_openeo.cube.elementwise import as_float, as_json_number, make_nodata_like
from odc_openeo.cube.streaming_reduction import make_moment_fold
from odc_openeo.errors import (
    AscendingProbabilitiesRequired,
    ProcessParameterInvalid,
    QuantilesParameterConflict,
    QuantilesParameterMissing,
)
from odc_openeo.processes.comparison import is_valid
from odc_openeo.registry.map_elements import apply_to_each
from odc_openeo.registry.process import OMITTED, Example, Schema, process
from odc_openeo.registry.schemas import (
    ANY_JSON,
    AnyValue,
    Array,
    Boolean,
    Number,
    NumberOrNull,
    Numbers,
    child_process_schema,
)

MAX_QUANTILES = 10_000
Condition = Annotated[
    Callable[..., Any] | bool | None,
    Schema(
        [
            child_process_schema(
                {"x": (ANY_JSON, "The element.")},
                {"type": "boolean"},
                "Whether to count the element.",
                title="Condition",
            ).json,
            {"title": "All elements", "type": "boolean", "const": True},
            {"title": "Valid elements", "type": "null"},
        ]
    ),
]
Pair = Annotated[
    Any,
    Schema(
        [
            {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}},
            {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "null"}},
        ]
    ),
]
Probabilities = Annotated[
    Any,
    Schema(
        [
            {
                "title": "Probabilities",
                "type": "array",
                "uniqueItems": True,
                "items": {"type": "number", "minimum": 0, "maximum": 1},
            },
            {"title": "Number of intervals", "type": "integer", "minimum": 2},
        ]
    ),
]
Intervals = Annotated[Any, Schema({"type": "integer", "minimum": 2}, deprecated=True)]


def _ignores_nodata(arguments: Mapping[str, Any]) -> bool:
    return arguments.get("ignore_nodata", True) is True


def _counts_valid(arguments: Mapping[str, Any]) -> bool:
    return arguments.get("condition") is None


# --- Extremes ------------------------------------------------------------------------------------


@process(
    categories=["math", "math > statistics", "reducer"],
    examples=[
        Example({"data": [1, 0, 3, 2]}, 0),
        Example({"data": [5, 2.5, None, -0.7]}, -0.7),
        Example({"data": [1, None], "ignore_nodata": False}, None),
        Example({"data": []}, None),
    ],
    skips_nodata=_ignores_nodata,
    raw_values_of=("data",),
)
def min_(data: Numbers, ignore_nodata: Boolean = True) -> NumberOrNull:
    """Smallest number.

    No-data if there are no numbers.

    Args:
        data: Numbers.
        ignore_nodata: Ignore no-data. If false, any no-data gives no-data.

    Returns:
        The smallest number.
    """
    return _reduce_numbers(
        "min", data, ignore_nodata, partial(_extreme_of_list, min), partial(_extreme_of_cube, np.min)
    )


@process(
    categories=["math", "math > statistics", "reducer"],
    examples=[Example({"data": [1, 0, 3, 2]}, 3), Example({"data": [5, 2.5, None, -0.7]}, 5)],
    skips_nodata=_ignores_nodata,
    raw_values_of=("data",),
)
def max_(data: Numbers, ignore_nodata: Boolean = True) -> NumberOrNull:
    """Largest number.

    No-data if there are no numbers.

    Args:
        data: Numbers.
        ignore_nodata: Ignore no-data. If false, any no-data gives no-data.

    Returns:
        The largest number.
    """
    return _reduce_numbers(
        "max", data, ignore_nodata, partial(_extreme_of_list, max), partial(_extreme_of_cube, np.max)
    )


@process(
    categories=["math > statistics"],
    examples=[
        Example({"data": [1, 0, 3, 2]}, [0, 3]),
        Example({"data": [5, 2.5, None, -0.7]}, [-0.7, 5]),
        Example({"data": [1, None], "ignore_nodata": False}, [None, None]),
    ],
    raw_values_of=("data",),
)
def extrema(data: Numbers, ignore_nodata: Boolean = True) -> Pair:
    """Smallest and largest number.

    Both are no-data if there are no numbers.

    Args:
        data: Numbers.
        ignore_nodata: Ignore no-data. If false, any no-data makes both no-data.

    Returns:
        An array of two numbers: the minimum and the maximum.
    """
    values = as_numbers(data, "extrema")
    low: Any = min_(values, ignore_nodata)
    high: Any = max_(values, ignore_nodata)
    if not isinstance(low, xr.DataArray):
        return [low, high]
    return xr.concat([low, high], dim=ARRAY, coords="minimal", compat="override", join="override")


def _extreme_of_list(choose: Callable[..., Any], values: list[Any]) -> Any:
    return math.nan if _has_nan(values) else choose(values)


def _extreme_of_cube(choose: Any, data: xr.DataArray, ignore_nodata: bool) -> xr.DataArray:
    return apply_by_nodata(partial(_extreme_by_nodata, choose, ignore_nodata), data)


def _extreme_by_nodata(choose: Any, ignore_nodata: bool, data: xr.DataArray, missing: Any) -> xr.DataArray:
    if missing is None or (np.issubdtype(data.dtype, np.floating) and not ignore_nodata):
        return reduce_blocks(choose, data, data.dtype, np.minimum if choose is np.min else np.maximum)
    if np.issubdtype(data.dtype, np.floating):
        ignoring = np.fmin if choose is np.min else np.fmax
        return reduce_blocks(partial(_call_kernel, ignoring.reduce), data, data.dtype, ignoring)
    kernel = partial(_integer_extreme, choose, missing, ignore_nodata)
    return reduce_blocks(kernel, data, data.dtype)


def _call_kernel(kernel: Any, block: np.ndarray, axis: Any, keepdims: bool) -> np.ndarray:
    return kernel(block, axis=axis[0] if isinstance(axis, tuple) else axis, keepdims=keepdims)


def _integer_extreme(
    choose: Any, missing: int, ignore_nodata: bool, block: np.ndarray, axis: Any, keepdims: bool
) -> np.ndarray:
    limits = np.iinfo(block.dtype)
    neutral = limits.max if choose is np.min else limits.min
    if ignore_nodata and missing == neutral:
        return choose(block, axis=axis, keepdims=keepdims)
    gaps = block == missing
    extreme = choose(np.where(gaps, block.dtype.type(neutral), block), axis=axis, keepdims=keepdims)
    is_nodata = (np.all if ignore_nodata else np.any)(gaps, axis=axis, keepdims=keepdims)
    return np.where(is_nodata, block.dtype.type(missing), extreme)


# --- Sums ----------------------------------------------------------------------------------------


@process(
    categories=["math", "reducer"],
    examples=[
        Example({"data": [5, 1]}, 6),
        Example({"data": [-2, 4, 2.5]}, 4.5),
        Example({"data": [1, None], "ignore_nodata": False}, None),
        Example({"data": []}, None),
    ],
    skips_nodata=_ignores_nodata,
)
def sum_(data: Numbers, ignore_nodata: Boolean = True) -> NumberOrNull:
    """Sum.

    No-data if there are no numbers.

    Args:
        data: Numbers.
        ignore_nodata: Ignore no-data. If false, any no-data gives no-data.

    Returns:
        The sum.
    """
    return _reduce_numbers(
        "sum", data, ignore_nodata, _sum_of_list, partial(_moment_of_cube, "sum", min_count=1)
    )


@process(
    categories=["math", "reducer"],
    examples=[
        Example({"data": [5, 0]}, 0),
        Example({"data": [-2, 4, 2.5]}, -20),
        Example({"data": [None]}, None),
    ],
    skips_nodata=_ignores_nodata,
)
def product(data: Numbers, ignore_nodata: Boolean = True) -> NumberOrNull:
    """Product.

    No-data if there are no numbers, NaN if there are infinite numbers of both signs.

    Args:
        data: Numbers.
        ignore_nodata: Ignore no-data. If false, any no-data gives no-data.

    Returns:
        The product.
    """
    return _reduce_numbers("product", data, ignore_nodata, _product_of_list, _product_of_cube)


@process(
    categories=["math > statistics", "reducer"],
    examples=[Example({"data": [1, 0, 3, 2]}, 1.5), Example({"data": [9, 2.5, None, -2.5]}, 3)],
    skips_nodata=_ignores_nodata,
    raw_values_of=("data",),
)
def mean(data: Numbers, ignore_nodata: Boolean = True) -> NumberOrNull:
    """Arithmetic mean.

    The sum divided by the number of elements; no-data if there are no numbers.

    Args:
        data: Numbers.
        ignore_nodata: Ignore no-data. If false, any no-data gives no-data.

    Returns:
        The mean.
    """
    return _reduce_numbers("mean", data, ignore_nodata, _mean_of_list, partial(_moment_of_cube, "mean"))


@process(
    categories=["math > statistics", "reducer"],
    examples=[
        Example({"data": [-1, 1, 3]}, 4),
        Example({"data": [2, 3, 3, None, 4, 4, 5]}, 1.1),
        Example({"data": [-1, 1, None, 3], "ignore_nodata": False}, None),
    ],
    skips_nodata=_ignores_nodata,
)
def variance(data: Numbers, ignore_nodata: Boolean = True) -> NumberOrNull:
    """Sample variance.

    The sum of the squared differences from the mean, divided by the number of elements minus one. No-data if
    there are no numbers, NaN if there is only one.

    Args:
        data: Numbers.
        ignore_nodata: Ignore no-data. If false, any no-data gives no-data.

    Returns:
        The variance.
    """
    return _reduce_numbers(
        "variance", data, ignore_nodata, _variance_of_list, partial(_moment_of_cube, "var", ddof=1)
    )


@process(
    categories=["math > statistics", "reducer"],
    examples=[
        Example({"data": [-1, 1, 3, None]}, 2),
        Example({"data": [-1, 1, 3, None], "ignore_nodata": False}, None),
    ],
    skips_nodata=_ignores_nodata,
)
def sd(data: Numbers, ignore_nodata: Boolean = True) -> NumberOrNull:
    """Sample standard deviation.

    The square root of the sample variance. No-data if there are no numbers, NaN if there
    is only one.

    Args:
        data: Numbers.
        ignore_nodata: Ignore no-data. If false, any no-data gives no-data.

    Returns:
        The standard deviation.
    """
    return _reduce_numbers(
        "sd", data, ignore_nodata, _deviation_of_list, partial(_moment_of_cube, "std", ddof=1)
    )


def _sum_of_list(values: list[Any]) -> Any:
    if all(isinstance(v, int) for v in values):
        return sum(values)
    floats = [as_float(v) for v in values]
    try:
        return math.fsum(floats)
    except (ValueError, OverflowError):
        return sum(floats)


def _product_of_list(values: list[Any]) -> Any:
    result: Any = 1
    if math.inf in values and -math.inf in values:
        return math.nan
    for value in values:
        try:
            result = as_json_number(result * value)
        except OverflowError:
            result = as_float(result) * as_float(value)
    return result


def _product_of_cube(data: xr.DataArray, ignore_nodata: bool) -> xr.DataArray:
    result = _moment_of_cube("prod", data, ignore_nodata, min_count=1)
    if not np.issubdtype(data.dtype, np.floating):
        return result
    signs = [reduce_blocks(np.any, data == infinity, bool) for infinity in (np.inf, -np.inf)]
    return result.where(~(signs[0] & signs[1]))


def _mean_of_list(values: list[Any]) -> Any:
    total = _sum_of_list(values)
    if isinstance(total, int):
        quotient, remainder = divmod(total, len(values))
        return quotient if not remainder else total / len(values)
    # The mean of large numbers can be finite although their sum is not.
    if math.isinf(total) and all(math.isfinite(as_float(v)) for v in values):
        return math.fsum(as_float(v) / len(values) for v in values)
    return total / len(values)


def _variance_of_list(values: list[Any]) -> float:
    if len(values) < 2 or not all(math.isfinite(as_float(v)) for v in values):
        return math.nan
    centre = _mean_of_list(values)
    try:
        return math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1)
    except OverflowError:
        return math.inf


def _deviation_of_list(values: list[Any]) -> float:
    return math.sqrt(_variance_of_list(values))


def _moment_of_cube(name: str, data: xr.DataArray, ignore_nodata: bool, **options: Any) -> xr.DataArray:
    """Compute a sum or a statistic based on sums in float64; the result has the dtype of the decoded cube."""
    decoded = cube.decode(data)
    if isinstance(decoded.data, da.Array):
        values = make_moment_fold(name, ignore_nodata)(decoded.data, decoded.get_axis_num(ARRAY), np.float64)
        return make_field(decoded, values).astype(decoded.dtype, copy=False)
    if not ignore_nodata:
        options.pop("min_count", None)
    with xr.set_options(use_numbagg=False, use_bottleneck=False), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        reduce = getattr(decoded, name)
        reduced = reduce(ARRAY, skipna=ignore_nodata, dtype=np.float64, keep_attrs=True, **options)
    return reduced.astype(decoded.dtype, copy=False)


# --- Quantiles -----------------------------------------------------------------------------------


@process(
    categories=["math > statistics", "reducer"],
    examples=[
        Example({"data": [1, 3, 3, 6, 7, 8, 9]}, 6),
        Example({"data": [1, 2, 3, 4, 5, 6, 8, 9]}, 4.5),
        Example({"data": [-1, 0, None, 1], "ignore_nodata": False}, None),
    ],
    skips_nodata=_ignores_nodata,
    raw_values_of=("data",),
)
def median(data: Numbers, ignore_nodata: Boolean = True) -> NumberOrNull:
    """Median.

    The middle one of the sorted numbers, or the mean of the two in the middle. No-data if there are no
    numbers.

    Args:
        data: Numbers.
        ignore_nodata: Ignore no-data. If false, any no-data gives no-data.

    Returns:
        The median.
    """
    on_json = partial(_json_quantiles, [0.5])
    return _reduce_numbers("median", data, ignore_nodata, lambda v: on_json(v)[0], _median_of_cube)


def _median_of_cube(data: xr.DataArray, ignore_nodata: bool) -> xr.DataArray:
    decoded = cube.decode(data)
    return apply_along_array(partial(_median_blocks, ignore_nodata), decoded, decoded.dtype)


def _median_blocks(ignore_nodata: bool, block: np.ndarray, axis: int) -> np.ndarray:
    return _quantile_blocks([0.5], ignore_nodata, block, axis).squeeze(axis)


@process(
    categories=["math > statistics"],
    examples=[
        Example({"data": [2, 4, 4, 4, 5, 5, 7, 9], "probabilities": [0.1, 0.5]}, [3.4, 4.5]),
        Example({"data": [2, 4, 4, 4, 5, 5, 7, 9], "probabilities": 4}, [4, 4.5, 5.5]),
        Example({"data": [], "probabilities": [0.1, 0.5]}, [None, None], title="Empty array"),
    ],
    raw_values_of=("data",),
)
def quantiles(
    data: Numbers,
    probabilities: Probabilities = OMITTED,
    q: Intervals = OMITTED,
    ignore_nodata: Boolean = True,
) -> Numbers:
    """Quantiles.

    The values below which the given fractions of the numbers lie, interpolated linearly (type 7 of Hyndman
    and Fan).

    Args:
        data: Numbers.
        probabilities: Fractions from 0 to 1 in ascending order, or the number of intervals of equal size to
            divide the numbers into.
        q: The number of intervals. Deprecated: use `probabilities` instead.
        ignore_nodata: Ignore no-data. If false, any no-data makes all quantiles no-data.

    Returns:
        An array of quantiles, one per probability; all are no-data if there are no numbers.

    Raises:
        QuantilesParameterMissing: Neither `probabilities` nor `q` is set.
        QuantilesParameterConflict: Both `probabilities` and `q` are set.
        AscendingProbabilitiesRequired: The probabilities are not in ascending order.
    """
    fractions = _parse_fractions(probabilities, q)
    values = as_numbers(data, "quantiles")
    if isinstance(values, xr.DataArray):
        decoded = cube.decode(values)
        kernel = partial(_quantile_blocks, fractions, ignore_nodata)
        return apply_along_array(kernel, decoded, decoded.dtype, size=len(fractions))
    present = [v for v in values if v is not None]
    if not present or (not ignore_nodata and len(present) < len(values)):
        return [None] * len(fractions)
    return _json_quantiles(fractions, present)


def _parse_fractions(probabilities: Any, q: Any) -> list[float]:
    arguments = [v for v in (probabilities, q) if v is not OMITTED and v is not None]
    if not arguments:
        raise QuantilesParameterMissing()
    if len(arguments) > 1:
        raise QuantilesParameterConflict()
    (argument,) = arguments
    if isinstance(argument, int | float):
        if argument < 2:
            raise ProcessParameterInvalid(
                process="quantiles", parameter="probabilities", reason="there must be at least 2 intervals."
            )
        check_count(argument, MAX_QUANTILES, "quantiles", "Ask for fewer.")
        return [i / int(argument) for i in range(1, int(argument))]
    if any(not isinstance(p, int | float) or not 0 <= p <= 1 for p in argument):
        raise ProcessParameterInvalid(
            process="quantiles", parameter="probabilities", reason="each value must be between 0 and 1."
        )
    if any(b <= a for a, b in zip(argument, argument[1:], strict=False)):
        raise AscendingProbabilitiesRequired()
    return [float(p) for p in argument]


def _json_quantiles(fractions: list[float], values: list[Any]) -> list[Any]:
    if _has_nan(values):
        return [math.nan] * len(fractions)
    ordered = sorted(values)
    return [_interpolate_at(ordered, p * (len(ordered) - 1)) for p in fractions]


def _interpolate_at(ordered: list[Any], position: float) -> Any:
    below = math.floor(position)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    share = position - below
    if not share or low == high:
        return low
    return low * (1 - share) + high * share


def _quantile_blocks(fractions: list[float], ignore_nodata: bool, block: np.ndarray, axis: int) -> np.ndarray:
    """Compute quantiles along an axis, ignoring NaN; several times as fast as `numpy.nanquantile`."""
    length = block.shape[axis]
    shape = [len(fractions) if i == axis else n for i, n in enumerate(block.shape)]
    if not length:
        return np.full(shape, np.nan, block.dtype)
    ordered = np.sort(block, axis=axis)
    count = length - np.isnan(ordered).sum(axis=axis, keepdims=True)
    results = np.empty(shape, block.dtype)
    for i, fraction in enumerate(fractions):
        position = fraction * np.maximum(count - 1, 0)
        below = np.floor(position).astype(np.intp)
        low = np.take_along_axis(ordered, below, axis)
        high = np.take_along_axis(ordered, np.minimum(below + 1, np.maximum(count - 1, 0)), axis)
        share = position - below
        interpolated = np.where((share == 0) | (low == high), low, low * (1 - share) + high * share)
        results[(slice(None),) * axis + (slice(i, i + 1),)] = interpolated
    return results if ignore_nodata else np.where(count < length, np.nan, results)


# --- Any values ----------------------------------------------------------------------------------


@process(
    categories=["arrays", "reducer"],
    examples=[
        Example({"data": [1, 0, 3, 2]}, 1),
        Example({"data": [None, "A", "B"]}, "A"),
        Example({"data": [None, 2, 3], "ignore_nodata": False}, None),
    ],
    raw_values_of=("data",),
)
def first(data: Array, ignore_nodata: Boolean = True) -> AnyValue:
    """First element.

    No-data if the array is empty or contains only no-data.

    Args:
        data: An array of any values.
        ignore_nodata: Ignore no-data. If false, the first element is returned even if it is no-data.

    Returns:
        The first element.
    """
    return _take_end(as_sequence(data, "first"), ignore_nodata, 0)


@process(
    categories=["arrays", "reducer"],
    examples=[
        Example({"data": [1, 0, 3, 2]}, 2),
        Example({"data": ["A", "B", None]}, "B"),
        Example({"data": [0, 1, None], "ignore_nodata": False}, None),
    ],
    raw_values_of=("data",),
)
def last(data: Array, ignore_nodata: Boolean = True) -> AnyValue:
    """Last element.

    No-data if the array is empty or contains only no-data.

    Args:
        data: An array of any values.
        ignore_nodata: Ignore no-data. If false, the last element is returned even if it is no-data.

    Returns:
        The last element.
    """
    return _take_end(as_sequence(data, "last"), ignore_nodata, -1)


def _take_end(values: Any, ignore_nodata: bool, index: int) -> Any:
    if isinstance(values, xr.DataArray):
        if not values.sizes[ARRAY]:
            return make_constant_field(values, np.nan, np.float32)
        return apply_by_nodata(partial(_take_end_by_nodata, ignore_nodata, index), values)
    candidates = [v for v in values if v is not None] if ignore_nodata else values
    return candidates[index] if candidates else None


def _take_end_by_nodata(ignore_nodata: bool, index: int, data: xr.DataArray, missing: Any) -> xr.DataArray:
    if missing is None or not ignore_nodata:
        return data.isel({ARRAY: index}, drop=True)
    return reduce_blocks(partial(_take_end_of_blocks, missing, index), data, data.dtype)


def _take_end_of_blocks(missing: Any, index: int, block: np.ndarray, axis: Any, keepdims: bool) -> np.ndarray:
    along = axis[0] if isinstance(axis, tuple) else axis
    present = ~np.isnan(block) if block.dtype.kind == "f" else block != missing
    if index == 0:
        position = present.argmax(axis=along, keepdims=True)
    else:
        backwards = np.flip(present, along).argmax(axis=along, keepdims=True)
        position = block.shape[along] - 1 - backwards
    elements = np.take_along_axis(block, position, along)
    return elements if keepdims else elements.squeeze(along)


@process(
    categories=["arrays", "math > statistics", "reducer"],
    examples=[
        Example({"data": []}, 0),
        Example({"data": ["ABC", None]}, 1),
        Example({"data": [False, None], "condition": True}, 2),
    ],
    skips_nodata=_counts_valid,
)
def count(data: Array, condition: Condition = None, context: AnyValue = None) -> Number:
    """Number of elements.

    Counts the valid elements (those for which `is_valid` is true) or the elements that meet a condition.

    Args:
        data: An array of any values.
        condition: A child process that returns whether to count an element; true to count all elements; null
            to count the valid ones.
        context: Passed on to the condition.

    Returns:
        The number of elements.
    """
    values = as_sequence(data, "count")
    if condition is True:
        length = values.sizes[ARRAY] if isinstance(values, xr.DataArray) else len(values)
        return make_constant_field(values, length, np.int32) if isinstance(values, xr.DataArray) else length
    if not callable(condition) and condition is not None:
        reason = "it must be a child process, true or null."
        raise ProcessParameterInvalid(process="count", parameter="condition", reason=reason)
    if isinstance(values, xr.DataArray):
        return _count_in_cube(values, condition, context)
    if condition is None:
        return sum(is_valid(v) is True for v in values)
    return sum(condition(x=v, context=context) is True for v in values)


def _count_in_cube(data: xr.DataArray, condition: Any, context: Any) -> xr.DataArray:
    if condition is None:
        is_counted: Any = np.isfinite(data) if data.dtype.kind == "f" else cube.valid(data)
    else:
        is_counted = apply_to_each(lambda x, **_: condition(x=x, context=context), data) == 1
    counts = reduce_blocks(partial(np.sum, dtype=np.int32), is_counted, np.int32)
    counts.attrs = {}
    return counts


# --- JSON and cubes ------------------------------------------------------------------------------


def _reduce_numbers(name: str, data: Any, ignore_nodata: bool, on_json: Any, on_cube: Any) -> Any:
    values = as_numbers(data, name)
    if isinstance(values, xr.DataArray):
        if not values.sizes[ARRAY]:
            return make_nodata_like(make_constant_field(values, 0, np.float32))
        return on_cube(values, ignore_nodata)
    present = [v for v in values if v is not None]
    if not present or (not ignore_nodata and len(present) < len(values)):
        return None
    return as_json_number(on_json(present))


def _has_nan(values: list[Any]) -> bool:
    return any(isinstance(v, float) and math.isnan(v) for v in values)
