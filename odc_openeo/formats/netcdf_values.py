"""Values of netCDF variables as those of cubes: raw numbers with one way to mark no-data."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr

from odc_openeo.cube import NODATA

VALID: Final = ("valid_range", "valid_min", "valid_max")


def mark_missing(variable: xr.DataArray) -> xr.DataArray:
    """Mark no-data as cubes do (lazy): NaN in floats, one declared value in integers.

    ``_FillValue``, ``missing_value`` and values outside of ``valid_range``, ``valid_min`` and ``valid_max``
    count as no-data. Integers that are to be read as unsigned (``_Unsigned``) become so. All but no-data
    are the raw values of the file.
    """
    attrs = variable.attrs
    data = variable.astype(_find_dtype(variable), copy=False)
    data.attrs, data.encoding = {}, {}
    fills = [
        n for key in ("_FillValue", "missing_value") for n in _parse_numbers(attrs.get(key), variable, data)
    ]
    low, high = _find_valid_range(attrs, variable, data)
    if data.dtype.kind == "b":
        return data
    if data.dtype.kind == "f":
        return _mask_floats(data, fills, low, high)
    missing = fills[0] if fills else _choose_nodata(data.dtype, low, high)
    if missing is None:
        return data
    invalid = [data == fill for fill in dict.fromkeys(fills) if fill != missing]
    invalid += [data < low] if low is not None and low > np.iinfo(data.dtype).min else []
    invalid += [data > high] if high is not None and high < np.iinfo(data.dtype).max else []
    for is_missing in invalid:
        data = data.where(~is_missing, missing)
    return data.astype(data.dtype).assign_attrs({NODATA: missing})


def _find_dtype(variable: xr.DataArray) -> np.dtype[Any]:
    dtype = variable.dtype.newbyteorder("=")
    unsigned = str(variable.attrs.get("_Unsigned", "")).lower()
    if dtype.kind == "i" and unsigned == "true":
        return np.dtype(f"u{dtype.itemsize}")
    return np.dtype(f"i{dtype.itemsize}") if dtype.kind == "u" and unsigned == "false" else dtype


def _parse_numbers(declared: Any, variable: xr.DataArray, data: xr.DataArray) -> list[Any]:
    """Numbers of an attribute as values of the cube; those that it cannot hold are left out."""
    try:
        numbers = np.asarray(declared if declared is not None else []).ravel()
        stored = numbers.astype(variable.dtype.newbyteorder("=")).astype(data.dtype)
        if data.dtype.kind in "iu" and data.dtype == variable.dtype:
            stored = stored[numbers.astype(float) == stored.astype(float)]
    except (TypeError, ValueError, OverflowError):
        return []
    return list(stored)


def _find_valid_range(attrs: Any, variable: xr.DataArray, data: xr.DataArray) -> tuple[Any, Any]:
    if data.dtype.kind in "iu" and any(
        np.asarray(attrs[key]).dtype.kind == "f" for key in VALID if key in attrs
    ):
        # Limits of the type of unpacked values are not limits of raw values.
        return None, None
    both = _parse_numbers(attrs.get("valid_range"), variable, data)
    if len(both) == 2:
        return both[0], both[1]
    low, high = (_parse_numbers(attrs.get(key), variable, data) for key in ("valid_min", "valid_max"))
    return (low[0] if len(low) == 1 else None), (high[0] if len(high) == 1 else None)


def _mask_floats(data: xr.DataArray, fills: list[Any], low: Any, high: Any) -> xr.DataArray:
    for fill in dict.fromkeys(fills):
        data = data if np.isnan(fill) else data.where(data != fill)
    data = data if low is None or np.isnan(low) else data.where(~(data < low))
    return data if high is None or np.isnan(high) else data.where(~(data > high))


def _choose_nodata(dtype: np.dtype[Any], low: Any, high: Any) -> Any:
    """A number outside of the valid range for those that are not valid; None if all numbers are valid."""
    limits = np.iinfo(dtype)
    if low is not None and low > limits.min:
        return dtype.type(limits.min)
    return dtype.type(limits.max) if high is not None and high < limits.max else None
