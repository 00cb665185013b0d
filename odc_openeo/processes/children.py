"""What child processes give back, made into a part of the cube they were called for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY, NODATA
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.process import PROCESSES

SCALARS: Final = (bool, int, float, str, np.generic, type(None))
"""What can be the value of a pixel."""


def field(result: Any, like: xr.DataArray, process: str, parameter: str) -> xr.DataArray:
    """The one value a pixel that a child process returned, with the dimensions and coordinates of ``like``.

    JSON scalars are spread over all pixels.

    Raises:
        ProcessParameterInvalid: the child returned an array, or something with other dimensions.
    """
    if cube.is_array(result):
        reason = "it returns an array where a single value is needed. End it with a reducer."
        raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
    if not isinstance(result, xr.DataArray):
        if not isinstance(result, SCALARS):
            reason = "it returns an object where a single value is needed. End it with a reducer."
            raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
        return constant(result, like)
    extra = [str(d) for d in result.dims if d not in like.dims]
    if extra:
        reason = f"it returns values with the additional dimensions {', '.join(extra)}."
        raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
    if set(result.dims) != set(like.dims):
        result = xr.broadcast(result, like)[0]
    return restored(result.transpose(*like.dims), like)


def constant(value: Any, like: xr.DataArray) -> xr.DataArray:
    """A lazy cube with one value everywhere; None is no-data (in the encoding of ``like`` if it has one)."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None:
        missing = cube.nodata(like)
        if missing is None:
            return xr.full_like(_undeclared(like), np.nan, dtype=np.float32)
        if isinstance(missing, xr.DataArray):
            return xr.zeros_like(like) + missing.astype(like.dtype)
        return xr.full_like(like, missing)
    return xr.full_like(_undeclared(like), value, dtype=np.array(value).dtype)


def _undeclared(data: xr.DataArray) -> xr.DataArray:
    bare = data.drop_vars(NODATA, errors="ignore").copy(deep=False)
    bare.attrs = {k: v for k, v in bare.attrs.items() if k != NODATA}
    return bare


def restored(result: xr.DataArray, like: xr.DataArray) -> xr.DataArray:
    """The result with what a calculation may have lost: coordinates, their attributes, attributes of the
    cube.

    The declaration of no-data is left as it is: it belongs to the values.
    """
    lost = {
        name: coord
        for name, coord in like.coords.items()
        if name not in result.coords
        and name != NODATA
        and all(result.sizes.get(d) == n for d, n in coord.sizes.items())
    }
    complete = result.assign_coords(lost)
    for name, coord in like.coords.items():
        if name in complete.coords and not complete.coords[name].attrs:
            complete.coords[name].attrs.update(coord.attrs)
    complete.attrs = {k: v for k, v in like.attrs.items() if k != NODATA} | complete.attrs
    return complete


def without_dimension(data: xr.DataArray, *dimensions: str) -> xr.DataArray:
    """A cube with the structure of ``data`` less some dimensions; its values mean nothing."""
    if all(data.sizes[d] for d in dimensions):
        return data.isel(dict.fromkeys(dimensions, 0), drop=True)
    return xr.zeros_like(data).any(list(dimensions)).astype(data.dtype)


def array(result: Any, like: xr.DataArray, process: str, parameter: str) -> xr.DataArray:
    """The array a pixel (along `ARRAY`, last) that a child process returned, with the dimensions of
    ``like`` too.

    Raises:
        ProcessParameterInvalid: the child returned a single value, an empty array or other dimensions.
    """
    if isinstance(result, cube.LabeledArray):
        result = list(result.values)
    if isinstance(result, list | tuple) and result:
        result = cube.stack(result)
    if not isinstance(result, xr.DataArray) or ARRAY not in result.dims or not result.sizes[ARRAY]:
        reason = (
            "it must return an array with at least one element. Use 'reduce_dimension' for single values."
        )
        raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
    extra = [str(d) for d in result.dims if d not in (*like.dims, ARRAY)]
    if extra:
        reason = f"it returns values with the additional dimensions {', '.join(extra)}."
        raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
    if len(result.dims) <= len(like.dims):
        result = xr.broadcast(result, like, exclude=[ARRAY])[0]
    return restored(result.transpose(*like.dims, ARRAY), like)


def elements_taken(reducer: Any) -> tuple[str, ...] | None:
    """The labels of all elements that a child graph takes of its array ``data``; None if it does more."""
    labels: list[str] = []
    for node in getattr(reducer, "nodes", {}).values():
        for name, value in node.arguments.items():
            if not _mentions_data(value):
                continue
            taken = node.arguments.get("label")
            known = isinstance(taken, str) and node.arguments.get("index") is None
            if node.process_id != "array_element" or node.definition or name != "data" or not known:
                return None
            labels.append(taken)
    return tuple(dict.fromkeys(labels)) or None


def skips_nodata(reducer: Any) -> bool:
    """Whether a child graph makes the same of its array ``data`` if that has more no-data in it."""
    for node in getattr(reducer, "nodes", {}).values():
        if not any(map(_mentions_data, node.arguments.values())):
            continue
        rule = None if node.definition else PROCESSES[node.process_id].skips_nodata
        others = (value for name, value in node.arguments.items() if name != "data")
        if rule is None or not rule(node.arguments) or any(map(_mentions_data, others)):
            return False
    return hasattr(reducer, "nodes")


def _mentions_data(value: Any) -> bool:
    """Whether an argument has to do with the array; child graphs may."""
    if isinstance(value, Mapping):
        return value.get("from_parameter") == "data" or any(map(_mentions_data, value.values()))
    if isinstance(value, list):
        return any(map(_mentions_data, value))
    return hasattr(value, "nodes")
