"""Running totals and extremes along an array.

No-data is skipped and stays no-data; if it is not ignored, all elements after it become no-data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY
from odc_openeo.cube.arrays import as_numbers
from odc_openeo.cube.elementwise import as_float, as_json_number
from odc_openeo.registry.process import Example, process
from odc_openeo.registry.schemas import Boolean, Numbers


@process(
    categories=["math > cumulative"],
    examples=[
        Example({"data": [1, 3, None, 3, 1]}, [1, 4, None, 7, 8]),
        Example({"data": [1, 3, None, 3, 1], "ignore_nodata": False}, [1, 4, None, None, None]),
    ],
    experimental=True,
)
def cumsum(data: Numbers, ignore_nodata: Boolean = True) -> Numbers:
    """Running sums.

    Each element becomes the sum of itself and all elements before it.

    Args:
        data: Numbers.
        ignore_nodata: Skip no-data. If false, all elements after a no-data value are no-data.

    Returns:
        An array with the same length and labels.
    """
    return _accumulate_numbers("cumsum", data, ignore_nodata, lambda a, b: a + b, np.add, 0)


@process(
    categories=["math > cumulative"],
    examples=[
        Example({"data": [1, 2, 3, None, 3, 1]}, [1, 2, 6, None, 18, 18]),
        Example({"data": [1, 2, 3, None, 3, 1], "ignore_nodata": False}, [1, 2, 6, None, None, None]),
    ],
    experimental=True,
)
def cumproduct(data: Numbers, ignore_nodata: Boolean = True) -> Numbers:
    """Running products.

    Each element becomes the product of itself and all elements before it.

    Args:
        data: Numbers.
        ignore_nodata: Skip no-data. If false, all elements after a no-data value are no-data.

    Returns:
        An array with the same length and labels.
    """
    return _accumulate_numbers("cumproduct", data, ignore_nodata, lambda a, b: a * b, np.multiply, 1)


@process(
    categories=["math > cumulative"],
    examples=[Example({"data": [1, 3, None, 5, 1]}, [1, 3, None, 5, 5])],
    experimental=True,
    raw_values_of=("data",),
)
def cummax(data: Numbers, ignore_nodata: Boolean = True) -> Numbers:
    """Running maxima.

    Each element becomes the maximum of itself and all elements before it.

    Args:
        data: Numbers.
        ignore_nodata: Skip no-data. If false, all elements after a no-data value are no-data.

    Returns:
        An array with the same length and labels.
    """
    return _accumulate_numbers(
        "cummax", data, ignore_nodata, partial(_choose_extreme, max), np.maximum, -np.inf
    )


@process(
    categories=["math > cumulative"],
    examples=[Example({"data": [5, 3, None, 1, 5]}, [5, 3, None, 1, 1])],
    experimental=True,
    raw_values_of=("data",),
)
def cummin(data: Numbers, ignore_nodata: Boolean = True) -> Numbers:
    """Running minima.

    Each element becomes the minimum of itself and all elements before it.

    Args:
        data: Numbers.
        ignore_nodata: Skip no-data. If false, all elements after a no-data value are no-data.

    Returns:
        An array with the same length and labels.
    """
    return _accumulate_numbers(
        "cummin", data, ignore_nodata, partial(_choose_extreme, min), np.minimum, np.inf
    )


def _choose_extreme(choose: Callable[..., Any], a: Any, b: Any) -> Any:
    return math.nan if math.isnan(as_float(a)) or math.isnan(as_float(b)) else choose(a, b)


def _accumulate_numbers(
    name: str, data: Any, ignore_nodata: bool, on_json: Any, ufunc: Any, neutral: float
) -> Any:
    values = as_numbers(data, name)
    if isinstance(values, xr.DataArray):
        return _accumulate_cube(cube.decode(values), ignore_nodata, ufunc, neutral)
    results = _accumulate_list(values, ignore_nodata, on_json)
    return cube.LabeledArray(data.labels, results) if isinstance(data, cube.LabeledArray) else results


def _accumulate_list(values: list[Any], ignore_nodata: bool, combine: Any) -> list[Any]:
    results: list[Any] = []
    total: Any = None
    for value in values:
        if value is None:
            if not ignore_nodata:
                return results + [None] * (len(values) - len(results))
            results.append(None)
            continue
        total = value if total is None else _combine_values(combine, total, value)
        results.append(total)
    return results


def _combine_values(combine: Any, total: Any, value: Any) -> Any:
    try:
        return as_json_number(combine(total, value))
    except OverflowError:
        return combine(as_float(total), as_float(value))


def _accumulate_cube(data: xr.DataArray, ignore_nodata: bool, ufunc: Any, neutral: float) -> xr.DataArray:
    axis = data.get_axis_num(ARRAY)
    values = data.fillna(neutral).data if ignore_nodata else data.data
    values = values.astype(np.float64)
    if isinstance(values, da.Array):
        totals = da.reductions.cumreduction(
            ufunc.accumulate, ufunc, neutral, values, axis=axis, dtype=np.float64
        )
    else:
        with np.errstate(all="ignore"):
            totals = ufunc.accumulate(values, axis=axis)
    result = data.copy(data=totals.astype(data.dtype))
    return result.where(data.notnull()) if ignore_nodata else result
