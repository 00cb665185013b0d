"""Join arrays end to end, some or all of them from cubes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY
from odc_openeo.cube.arrays import find_pixel_shape
from odc_openeo.cube.elementwise import as_float
from odc_openeo.cube.packing import drop_packing
from odc_openeo.errors import IncompatibleDataCubes
from odc_openeo.untrusted.json_schemas import is_exact


def join_arrays(parts: Sequence[Any], like: xr.DataArray | None = None) -> xr.DataArray:
    """Join arrays along `ARRAY`.

    Args:
        parts: lists of JSON numbers, booleans and nulls, and DataArrays along `ARRAY`.
        like: a DataArray that has the shape of the pixels if no part has it.

    Returns:
        A DataArray along `ARRAY` without labels. Dtype and no-data value are kept where all parts agree on
        them; else it holds floats.
    """
    parts = [drop_packing(part) for part in parts]
    arrays = [
        _drop_labels(p if isinstance(p, xr.DataArray) else _array_from_json(p))
        for p in parts
        if _count_elements(p)
    ]
    if not arrays:
        return next((p for p in parts if isinstance(p, xr.DataArray)), xr.DataArray([], dims=ARRAY))
    cubes = [p for p in parts if isinstance(p, xr.DataArray) and _count_elements(p)]
    uniform = len(cubes) == len(arrays) and all(cube.has_same_nodata(cubes[0], g) for g in cubes[1:])
    if not uniform:
        arrays = _unify_dtype(arrays, [isinstance(p, xr.DataArray) for p in parts if _count_elements(p)])
    shape = find_pixel_shape([*arrays, *([] if like is None else [like])])
    whole = [_spread_over_pixels(a, shape) for a in arrays]
    dims = next((g.dims for g in cubes if len(g.dims) == whole[0].ndim), whole[0].dims)
    return xr.concat(
        [a.transpose(*dims) for a in whole], dim=ARRAY, coords="minimal", compat="override", join="override"
    )


def _drop_labels(array: xr.DataArray) -> xr.DataArray:
    """Drop the labels and all else that is known of single elements, except their no-data values."""
    along = [n for n, c in array.coords.items() if ARRAY in c.dims and n != cube.NODATA]
    return array.drop_vars(along)


def _count_elements(part: Any) -> int:
    return part.sizes[ARRAY] if isinstance(part, xr.DataArray) else len(part)


def _array_from_json(values: Sequence[Any]) -> xr.DataArray:
    if not all(v is None or isinstance(v, bool | int | float | np.generic) for v in values):
        raise IncompatibleDataCubes(
            reason="only numbers, booleans and nulls can be in one array with values of a data cube."
        )
    plain = [as_float(v) if isinstance(v, int) and not is_exact(v) else v for v in values]
    return xr.DataArray(np.array([np.nan if v is None else v for v in plain]), dims=ARRAY)


def _unify_dtype(arrays: list[xr.DataArray], in_cube: list[bool]) -> list[xr.DataArray]:
    if all(a.dtype == bool for a in arrays):
        return arrays
    decoded = [cube.decode(a) for a in arrays]
    dtypes = [a.dtype for a, is_cube in zip(decoded, in_cube, strict=True) if is_cube]
    dtype = np.result_type(*(dtypes or [a.dtype for a in decoded]))
    return [a.astype(dtype, copy=False) for a in decoded]


def _spread_over_pixels(array: xr.DataArray, shape: xr.DataArray | None) -> xr.DataArray:
    """Repeat the array for every pixel, in the chunks of the pixels."""
    if shape is None or set(shape.dims) <= set(array.dims):
        return array
    spread = xr.zeros_like(shape, dtype=array.dtype) + array
    spread.attrs = array.attrs
    return spread
