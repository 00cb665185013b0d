"""Convert the results of child processes to parts of the cube they were called for."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Final

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY, NODATA, PACKING, TYPE
from odc_openeo.cube.packing import drop_packing
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.registry.process import PROCESSES

RUN_UDF: Final = "run_udf"
FROM_USER_CODE: Final = "__from_user_code__"
"""Attribute of the results of user-defined functions, which may have other labels than the cube had."""
_PRIVATE: Final = (cube.ARRAY_NAME, FROM_USER_CODE)

SCALARS: Final = (bool, int, float, str, np.generic, type(None))
"""Types that the value of a pixel can have."""


def as_field(result: Any, like: xr.DataArray, process: str, parameter: str) -> xr.DataArray:
    """Return the single value per pixel of a child process, with the dimensions and coordinates of ``like``.

    JSON scalars are spread over all pixels.

    Raises:
        ProcessParameterInvalid: the child returned an array, or something with other dimensions.
    """
    if is_from_user_code(result):
        result = _fit_user_result(result, like, process, parameter)
    if cube.is_array(result):
        reason = "it returns an array where a single value is needed. End it with a reducer."
        raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
    if not isinstance(result, xr.DataArray):
        if not isinstance(result, SCALARS):
            reason = "it returns an object where a single value is needed. End it with a reducer."
            raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
        return make_constant(result, like)
    extra = [str(d) for d in result.dims if d not in like.dims]
    if extra:
        reason = f"it returns values with the additional dimensions {', '.join(extra)}."
        raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
    if set(result.dims) != set(like.dims):
        result = xr.broadcast(result, like)[0]
    ordered = result if result.dims == like.dims else result.transpose(*like.dims)
    return _drop_private(restore_coordinates(ordered, like))


def is_from_user_code(result: Any) -> bool:
    """Return whether a value is what a user-defined function returned."""
    return isinstance(result, xr.DataArray) and FROM_USER_CODE in result.attrs


def _fit_user_result(result: xr.DataArray, like: xr.DataArray, process: str, parameter: str) -> xr.DataArray:
    """Drop the array dimension if user code kept it with one label; see `add_single_labels`."""
    if result.sizes.get(ARRAY) == 1:
        result = result.isel({ARRAY: 0}, drop=True)
    return result if ARRAY in result.dims else add_single_labels(result, like, process, parameter)


def add_single_labels(result: xr.DataArray, like: xr.DataArray, process: str, parameter: str) -> xr.DataArray:
    """Add the dimensions with one label that a result of user code lacks.

    Raises:
        ProcessParameterInvalid: it lacks a dimension with several labels.
    """
    missing = [str(d) for d in like.dims if d not in result.dims]
    lost = [d for d in missing if like.sizes[d] != 1]
    if lost:
        reason = f"its user-defined function returns values without the dimensions {', '.join(lost)}."
        raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
    return result.expand_dims(missing)


def _drop_private(data: xr.DataArray) -> xr.DataArray:
    """Drop attributes that have a meaning only inside a child process."""
    data.attrs = {k: v for k, v in data.attrs.items() if k not in _PRIVATE}
    return data


def make_constant(value: Any, like: xr.DataArray) -> xr.DataArray:
    """Make a lazy cube with one value everywhere; None is no-data (as encoded in ``like``, if so)."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None:
        missing = cube.nodata(like)
        if missing is None:
            return xr.full_like(_drop_nodata(like), np.nan, dtype=np.float32)
        if isinstance(missing, xr.DataArray):
            return xr.zeros_like(like) + missing.astype(like.dtype)
        return xr.full_like(like, missing)
    return xr.full_like(drop_packing(_drop_nodata(like)), value, dtype=np.array(value).dtype)


def _drop_nodata(data: xr.DataArray) -> xr.DataArray:
    bare = data.drop_vars(NODATA, errors="ignore").copy(deep=False)
    bare.attrs = {k: v for k, v in bare.attrs.items() if k != NODATA}
    return bare


def restore_coordinates(result: xr.DataArray, like: xr.DataArray) -> xr.DataArray:
    """Restore what a calculation may have lost: coordinates, their attributes, attributes of the cube.

    The declarations of no-data, of booleans, and of units, scales and offsets are left unchanged: they belong
    to the values.
    """
    # Variables: each coordinate as a DataArray would bring all others along its dimensions with it.
    lost = {
        name: like.coords[name].reset_coords(drop=True)
        for name, coord in like.coords.variables.items()
        if name not in result.coords
        and name not in (NODATA, *PACKING)
        and all(
            result.sizes.get(d) == n and _has_same_labels(result, like, d) for d, n in coord.sizes.items()
        )
    }
    complete = result.assign_coords(lost) if lost else result.copy(deep=False)
    present = complete.coords.variables
    for name, coord in like.coords.variables.items():
        if name in present and not present[name].attrs:
            present[name].attrs.update(coord.attrs)
    complete.attrs = {k: v for k, v in like.attrs.items() if k not in (NODATA, TYPE)} | complete.attrs
    return complete


def _has_same_labels(result: xr.DataArray, like: xr.DataArray, dimension: Hashable) -> bool:
    """Return whether what is known of the labels of one cube is true of those of the other."""
    if dimension not in result.coords or dimension not in like.coords:
        return True
    return bool(result.coords.variables[dimension].equals(like.coords.variables[dimension]))


def runs_user_code(child: Any) -> bool:
    """Return whether a child graph, or a stored process that it calls, has a user-defined function."""
    graph = getattr(child, "graph", child)
    for node in getattr(graph, "nodes", {}).values():
        inner = [g for graphs in node.children.values() for g in graphs]
        if node.definition is not None:
            inner.append(node.definition.graph)
        elif node.process_id == RUN_UDF:
            return True
        if any(map(runs_user_code, inner)):
            return True
    return False


def drop_dimensions(data: xr.DataArray, *dimensions: str) -> xr.DataArray:
    """Return a cube with the structure of ``data`` without some dimensions; its values are meaningless."""
    if all(data.sizes[d] for d in dimensions):
        return data.isel(dict.fromkeys(dimensions, 0), drop=True)
    return xr.zeros_like(data).any(list(dimensions)).astype(data.dtype)


def as_array(result: Any, like: xr.DataArray, process: str, parameter: str) -> xr.DataArray:
    """Return the array per pixel (along `ARRAY`, last) of a child process, with the dimensions of ``like``.

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
    return _drop_private(restore_coordinates(result.transpose(*like.dims, ARRAY), like))


def find_elements_taken(reducer: Any) -> tuple[str, ...] | None:
    """Find the labels of the elements that a child graph takes from array ``data``; None if it does more."""
    labels: list[str] = []
    for node in getattr(reducer, "nodes", {}).values():
        for name, value in node.arguments.items():
            if not _mentions_data(value):
                continue
            taken = node.arguments.get("label")
            has_label = isinstance(taken, str) and node.arguments.get("index") is None
            if node.process_id != "array_element" or node.definition or name != "data" or not has_label:
                return None
            labels.append(taken)
    return tuple(dict.fromkeys(labels)) or None


def skips_nodata(reducer: Any) -> bool:
    """Return whether a child graph ignores additional no-data in its array ``data``."""
    for node in getattr(reducer, "nodes", {}).values():
        if not any(map(_mentions_data, node.arguments.values())):
            continue
        rule = None if node.definition else PROCESSES[node.process_id].skips_nodata
        remaining = (value for name, value in node.arguments.items() if name != "data")
        if rule is None or not rule(node.arguments) or any(map(_mentions_data, remaining)):
            return False
    return hasattr(reducer, "nodes")


def _mentions_data(value: Any) -> bool:
    """Return whether an argument refers to the array; child graphs may."""
    if isinstance(value, Mapping):
        return value.get("from_parameter") == "data" or any(map(_mentions_data, value.values()))
    if isinstance(value, list):
        return any(map(_mentions_data, value))
    return hasattr(value, "nodes")
