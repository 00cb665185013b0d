"""Run a child process on each element of an array of a cube, all elements at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from odc_openeo.cube import ARRAY, is_array
from odc_openeo.cube.arrays import get_labels, is_labeled
from odc_openeo.errors import ProcessParameterInvalid


def apply_to_each(child: Callable[..., Any], data: xr.DataArray) -> xr.DataArray:
    """Apply a child process to every element of the arrays of a cube.

    While it runs, the array dimension has another name, so that ``x`` is one value per pixel; ``index``
    and ``label`` have that dimension too, so that one call serves all elements.

    Args:
        child: takes ``x``, ``index`` and ``label``.
        data: a DataArray along `ARRAY`.

    Returns:
        The results of the child process, along `ARRAY` with the labels of ``data``.
    """
    dimension = _unused_name(data)
    x = data.rename({ARRAY: dimension}).drop_vars(dimension, errors="ignore")
    index = xr.DataArray(np.arange(data.sizes[ARRAY], dtype=np.int32), dims=dimension)
    label = xr.DataArray(np.array(get_labels(data)), dims=dimension) if is_labeled(data) else None
    result = child(x=x, index=index, label=label)
    if is_array(result):
        reason = "it returns an array where a single value is needed."
        raise ProcessParameterInvalid(process="array_apply", parameter="process", reason=reason)
    if not isinstance(result, xr.DataArray):
        result = xr.DataArray(
            np.full(data.sizes[ARRAY], np.nan if result is None else result), dims=dimension
        )
    elif dimension not in result.dims:
        result = result.expand_dims({dimension: data.sizes[ARRAY]})
    restored = result.rename({dimension: ARRAY})
    if ARRAY in data.coords:
        restored = restored.assign_coords({ARRAY: data.coords[ARRAY]})
    return restored.transpose(*(d for d in data.dims if d in restored.dims), ...)


def _unused_name(data: xr.DataArray) -> str:
    level = 0
    while f"__element_{level}__" in data.dims:
        level += 1
    return f"__element_{level}__"
