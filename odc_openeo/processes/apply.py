"""Processes that run a child process on each value, along a dimension, or over the whole area of a cube."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Final

import dask.array as da
import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY, X, Y
from odc_openeo.cube.budget import check_count
from odc_openeo.cube.concat import concat
from odc_openeo.cube.coordinates import check_name, drop_single_label, make_coordinate
from odc_openeo.errors import DimensionMissing, TargetDimensionExists
from odc_openeo.registry.child_results import (
    add_single_labels,
    as_array,
    as_field,
    drop_dimensions,
    find_elements_taken,
    is_from_user_code,
    restore_coordinates,
)
from odc_openeo.registry.demand import Demand, along_arguments, along_dimensions, same_part
from odc_openeo.registry.process import process
from odc_openeo.registry.schemas import (
    ANY_ARRAY,
    ANY_JSON,
    LABELED_ARRAY,
    AnyValue,
    Cube,
    LabeledReducer,
    Reducer,
    SpatialCube,
    String,
    StringOrNull,
    child_process_schema,
)

MAX_TARGET_LABELS: Final = 1_000
"""Most labels of an existing target dimension: the values of each are joined one by one."""

ValueProcess = Annotated[
    Callable[..., Any], child_process_schema({"x": (ANY_JSON, "The value to process.")}, ANY_JSON)
]
ArrayProcess = Annotated[
    Callable[..., Any],
    child_process_schema(
        {"data": (LABELED_ARRAY, "The values along the dimension, with their labels.")}, ANY_ARRAY
    ),
]


@process(categories=["cubes"], needs=same_part("data"), pointwise=True, raw_values_of=None)
def apply(data: Cube, process: ValueProcess, context: AnyValue = None) -> Cube:
    """Apply a process to each value.

    Args:
        data: A data cube.
        process: Called with each value as `x`; returns the new value.
        context: Additional data for the process.

    Returns:
        The data cube with the new values and the same dimensions and labels.
    """
    if isinstance(data, xr.Dataset):
        return data.assign({name: apply(v, process, context) for name, v in data.data_vars.items()})
    return as_field(process(x=data, context=context), data, "apply", "process")


@process(
    categories=["cubes"],
    needs=along_arguments("dimension", "target_dimension"),
    pointwise=True,
    raw_values_of=None,
)
def apply_dimension(
    data: Cube,
    process: ArrayProcess,
    dimension: String,
    target_dimension: StringOrNull = None,
    context: AnyValue = None,
) -> Cube:
    """Apply a process to all values along a dimension.

    The labels stay if the process returns as many values as it received and no other target dimension is
    given; otherwise they become 0, 1, 2, …. A process that returns a single value instead of an array gives
    one label.

    If the target dimension exists already, the process is called for each of its labels, and the dimension
    receives all values: first those of the first label, then those of the second, and so on.

    Args:
        data: A data cube.
        process: Called with the values along the dimension as the labelled array `data`; returns an array
            or a single value.
        dimension: The name of the dimension.
        target_dimension: The name of a dimension that receives the values instead. If it doesn't exist, it
            is created with the type `other`.
        context: Additional data for the process.

    Returns:
        The data cube with the new values along the dimension, or along the target dimension instead.

    Raises:
        DimensionNotAvailable: The cube has no dimension of that name.
        TargetDimensionExists: The target dimension exists and holds several pixels or geometries.
    """
    cube.require_dimension(data, dimension)
    if target_dimension is not None and target_dimension not in data.dims:
        check_name(target_dimension, "other", "apply_dimension", "target_dimension")
    if isinstance(data, xr.Dataset):
        one = {k: v for k, v in data.data_vars.items() if dimension in v.dims}
        new = {k: apply_dimension(v, process, dimension, target_dimension, context) for k, v in one.items()}
        return data.drop_vars(list(new)).drop_dims(dimension, errors="ignore").assign(new)
    target = target_dimension or dimension
    if target != dimension and target in data.dims:
        _check_receives(data, target)
    result = process(data=cube.to_array(data, dimension), context=context)
    rest = drop_dimensions(data, dimension)
    if is_from_user_code(result):
        return _take_user_result(data, rest, result, dimension, target)
    values = _as_elements(result, rest)
    order = [str(d) for d in data.dims]
    type_ = cube.dimension_type(data, dimension)
    if target != dimension and target in data.dims:
        values, type_ = _join_elements(values, target), cube.dimension_type(data, target)
        order.remove(dimension)
    elif target != dimension:
        order[order.index(dimension)], type_ = target, "other"
    like = data if target == dimension and values.sizes[ARRAY] == data.sizes[dimension] else None
    return _restore_dimension(values, target, type_, like).transpose(*order)


def _take_user_result(
    data: xr.DataArray, rest: xr.DataArray, result: xr.DataArray, dimension: str, target: str
) -> xr.DataArray:
    """Make the cube of a result of user code, whose labels stay.

    User code may have moved the values into the target dimension itself, or have reduced them to one.
    """
    order = [str(d) for d in data.dims if d != target or target == dimension]
    order[order.index(dimension)] = target
    type_ = cube.dimension_type(data, target) if target in data.dims else "other"
    if target in result.dims and result.sizes.get(ARRAY, 1) == 1:
        reduced = result.isel({ARRAY: 0}, drop=True) if ARRAY in result.dims else result
        result = reduced.rename({target: ARRAY})
        rest = drop_dimensions(rest, target) if target in rest.dims else rest
    if ARRAY not in result.dims:
        result = result.expand_dims(ARRAY)
    labels = cube.json_labels(result.coords[ARRAY].values) if ARRAY in result.coords else None
    result = add_single_labels(result, rest, "apply_dimension", "process")
    values = as_array(result, rest, "apply_dimension", "process")
    if target in rest.dims:
        values, labels = _join_elements(values, target), None
    if target == dimension and type_ == "geometry" and ARRAY in values.xindexes:
        return cube.from_array(values, dimension, data).transpose(*order)
    if labels is None or (target == dimension and labels == cube.labels(data, dimension)):
        like = data if target == dimension and values.sizes[ARRAY] == data.sizes[dimension] else None
        return _restore_dimension(values, target, type_, like).transpose(*order)
    coord = make_coordinate(target, labels, type_)
    return _name_dimension(values, target).assign_coords({target: coord}).transpose(*order)


def _check_receives(data: xr.DataArray, target: str) -> None:
    """Check that an existing dimension can receive the values of another one."""
    if data.sizes[target] == 1:
        return
    if cube.dimension_type(data, target) in ("spatial", "geometry"):
        raise TargetDimensionExists(
            f"The target dimension '{target}' holds {data.sizes[target]} pixels or geometries, which values "
            f"can't replace. Choose 'bands' or a new name."
        )
    advice = "Choose a new name for the target dimension."
    check_count(data.sizes[target], MAX_TARGET_LABELS, "labels of the target dimension", advice)


def _as_elements(result: Any, like: xr.DataArray) -> xr.DataArray:
    """Return what a process gave for each pixel as an array; a single value has one element."""
    if cube.is_array(result):
        return as_array(result, like, "apply_dimension", "process")
    return as_field(result, like, "apply_dimension", "process").expand_dims(ARRAY, axis=-1)


def _join_elements(values: xr.DataArray, target: str) -> xr.DataArray:
    """Join the arrays of the labels of a dimension end to end, in the order of the labels."""
    parts = [drop_single_label(values.isel({target: [i]}), target) for i in range(values.sizes[target])]
    lost = [n for n, c in values.coords.items() if ARRAY in c.dims and n != cube.NODATA]
    return concat([part.drop_vars(lost, errors="ignore") for part in parts], ARRAY)


def _restore_dimension(
    values: xr.DataArray, target: str, type_: str, like: xr.DataArray | None
) -> xr.DataArray:
    """Rename the array dimension; its labels are those of ``like`` or, without it, 0, 1, 2, …."""
    named = _name_dimension(values, target)
    if like is not None:
        # All at once: geometries have an index of their own.
        along = like.drop_vars([name for name, c in like.coords.items() if target not in c.dims]).coords
        return restore_coordinates(named.assign_coords(along), like)
    return named.assign_coords({target: make_coordinate(target, list(range(named.sizes[target])), type_)})


def _name_dimension(values: xr.DataArray, target: str) -> xr.DataArray:
    lost = [n for n, c in values.coords.items() if ARRAY in c.dims and n != cube.NODATA]
    return values.drop_vars(lost).rename({ARRAY: target})


def _needs_of_reduction(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    needed = along_arguments("dimension")(demand, arguments)["data"]
    bands = (
        find_elements_taken(arguments.get("reducer")) if arguments.get("dimension") == cube.BANDS else None
    )
    return {"data": needed if bands is None else replace(needed, bands=bands)}


@process(categories=["cubes", "reducer"], needs=_needs_of_reduction, pointwise=True, raw_values_of=None)
def reduce_dimension(
    data: Cube, reducer: LabeledReducer, dimension: String, context: AnyValue = None
) -> Cube:
    """Reduce all values along a dimension to one.

    Args:
        data: A data cube.
        reducer: Called with the values along the dimension as the labelled array `data`; returns one value.
        dimension: The name of the dimension, which is dropped.
        context: Additional data for the reducer.

    Returns:
        The data cube without the dimension.

    Raises:
        DimensionNotAvailable: The cube has no dimension of that name.
    """
    cube.require_dimension(data, dimension)
    if isinstance(data, xr.Dataset):
        one = {k: v for k, v in data.data_vars.items() if dimension in v.dims}
        new = {k: reduce_dimension(v, reducer, dimension, context) for k, v in one.items()}
        return data.drop_dims(dimension).assign(new)
    result = reducer(data=cube.to_array(data, dimension), context=context)
    return as_field(result, drop_dimensions(data, dimension), "reduce_dimension", "reducer")


@process(
    categories=["aggregate", "cubes", "reducer"],
    experimental=True,
    needs=along_dimensions(X, Y),
    raw_values_of=None,
)
def reduce_spatial(data: SpatialCube, reducer: Reducer, context: AnyValue = None) -> Cube:
    """Reduce all pixels of the area to one value.

    The order in which the reducer receives the pixels is undefined.

    Args:
        data: A raster data cube.
        reducer: Called with all pixels as the array `data`; returns one value.
        context: Additional data for the reducer.

    Returns:
        The data cube without x and y.
    """
    if not cube.has_raster_dimensions(data):
        raise DimensionMissing(type="spatial")
    result = reducer(data=_flatten_pixels(data), context=context)
    return as_field(result, drop_dimensions(data, Y, X), "reduce_spatial", "reducer")


def _flatten_pixels(data: xr.DataArray) -> xr.DataArray:
    """All pixels along `ARRAY`; chunk by chunk if the cube is chunked, so that no data is moved."""
    ordered = data.transpose(..., Y, X)
    shape = (*ordered.shape[:-2], ordered.shape[-2] * ordered.shape[-1])
    values = ordered.data
    if isinstance(values, da.Array) and not values.size:
        # Dask cannot reshape an empty array.
        flat = da.empty(shape, dtype=values.dtype, chunks=-1)
    elif isinstance(values, da.Array) and not np.isnan(values.size):
        flat = da.reshape_blockwise(values, shape)
    else:
        flat = values.reshape(shape)
    coords = {k: c for k, c in data.coords.items() if not {X, Y} & set(c.dims)}
    return xr.DataArray(flat, dims=(*ordered.dims[:-2], ARRAY), coords=coords, attrs=data.attrs)
