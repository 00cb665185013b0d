"""Join arrays end to end, of which some or all are in cubes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY
from odc_openeo.errors import IncompatibleDataCubes
from odc_openeo.json_schemas import is_exact
from odc_openeo.processes.elementwise import as_float
from odc_openeo.processes.sequences import shape_of_pixels, with_labels


def join(parts: Sequence[Any], like: xr.DataArray | None = None) -> xr.DataArray:
    """Join arrays along `ARRAY`.

    Args:
        parts: lists of JSON numbers, booleans and nulls, and DataArrays along `ARRAY`.
        like: a DataArray that gives the shape of a pixel's neighbours where no part does.

    Returns:
        A DataArray along `ARRAY` without labels. Dtype and no-data value are kept where all parts agree on
        them; else it holds floats.
    """
    arrays = [with_labels(p if isinstance(p, xr.DataArray) else _of_json(p), None) for p in parts if _size(p)]
    if not arrays:
        return next((p for p in parts if isinstance(p, xr.DataArray)), xr.DataArray([], dims=ARRAY))
    given = [p for p in parts if isinstance(p, xr.DataArray) and _size(p)]
    uniform = len(given) == len(arrays) and all(cube.same_nodata(given[0], g) for g in given[1:])
    if not uniform:
        arrays = _of_one_dtype(arrays, [isinstance(p, xr.DataArray) for p in parts if _size(p)])
    shape = shape_of_pixels([*arrays, *([] if like is None else [like])])
    whole = [_spread(a, shape) for a in arrays]
    dims = next((g.dims for g in given if len(g.dims) == whole[0].ndim), whole[0].dims)
    return xr.concat(
        [a.transpose(*dims) for a in whole], dim=ARRAY, coords="minimal", compat="override", join="override"
    )


def _size(part: Any) -> int:
    return part.sizes[ARRAY] if isinstance(part, xr.DataArray) else len(part)


def _of_json(values: Sequence[Any]) -> xr.DataArray:
    if not all(v is None or isinstance(v, bool | int | float | np.generic) for v in values):
        raise IncompatibleDataCubes(
            reason="only numbers, booleans and nulls can be in one array with values of a data cube."
        )
    plain = [as_float(v) if isinstance(v, int) and not is_exact(v) else v for v in values]
    return xr.DataArray(np.array([np.nan if v is None else v for v in plain]), dims=ARRAY)


def _of_one_dtype(arrays: list[xr.DataArray], in_cube: list[bool]) -> list[xr.DataArray]:
    if all(a.dtype == bool for a in arrays):
        return arrays
    decoded = [cube.decode(a) for a in arrays]
    dtypes = [a.dtype for a, given in zip(decoded, in_cube, strict=True) if given]
    dtype = np.result_type(*(dtypes or [a.dtype for a in decoded]))
    return [a.astype(dtype, copy=False) for a in decoded]


def _spread(array: xr.DataArray, shape: xr.DataArray | None) -> xr.DataArray:
    """The array in every pixel, in the chunks of the pixels."""
    if shape is None or set(shape.dims) <= set(array.dims):
        return array
    spread = xr.zeros_like(shape, dtype=array.dtype) + array
    spread.attrs = array.attrs
    return spread
