"""Processes that run a child process on each value, along a dimension, or over the whole area of a cube."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

import dask.array as da
import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY, X, Y
from odc_openeo.cube.coordinates import check_name, make_coordinate
from odc_openeo.errors import DimensionMissing, TargetDimensionExists
from odc_openeo.registry.child_results import (
    as_array,
    as_field,
    drop_dimensions,
    find_elements_taken,
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
    given; otherwise they become 0, 1, 2, ….

    Args:
        data: A data cube.
        process: Called with the values along the dimension as the labelled array `data`; returns an array.
        dimension: The name of the dimension.
        target_dimension: The name of a dimension that receives the values instead. It is created with the
            type `other`; if it already exists, it must have a single label.
        context: Additional data for the process.

    Returns:
        The data cube with the new values along the dimension, or along the target dimension instead.

    Raises:
        DimensionNotAvailable: The cube has no dimension of that name.
        TargetDimensionExists: The target dimension exists and has several labels.
    """
    cube.require_dimension(data, dimension)
    if target_dimension is not None and target_dimension not in data.dims:
        check_name(target_dimension, "other", "apply_dimension", "target_dimension")
    if isinstance(data, xr.Dataset):
        one = {k: v for k, v in data.data_vars.items() if dimension in v.dims}
        new = {k: apply_dimension(v, process, dimension, target_dimension, context) for k, v in one.items()}
        return data.drop_vars(list(new)).drop_dims(dimension, errors="ignore").assign(new)
    target = target_dimension or dimension
    result = process(data=cube.to_array(data, dimension), context=context)
    rest = drop_dimensions(data, dimension)
    order = [str(d) for d in data.dims]
    type_ = cube.dimension_type(data, dimension)
    if target != dimension and target in data.dims:
        rest, result, type_ = _move_into_existing(data, rest, result, target)
        order.remove(dimension)
    elif target != dimension:
        order[order.index(dimension)], type_ = target, "other"
    values = as_array(result, rest, "apply_dimension", "process")
    like = data if target == dimension and values.sizes[ARRAY] == data.sizes[dimension] else None
    return _restore_dimension(values, target, type_, like).transpose(*order)


def _move_into_existing(
    data: xr.DataArray, rest: xr.DataArray, result: Any, target: str
) -> tuple[xr.DataArray, Any, str]:
    if data.sizes[target] != 1:
        raise TargetDimensionExists(
            f"The target dimension '{target}' has {data.sizes[target]} labels; it must have a single one."
        )
    if isinstance(result, list):
        result = cube.stack(result)
    if isinstance(result, xr.DataArray) and target in result.dims:
        result = result.isel({target: 0}, drop=True)
    return drop_dimensions(rest, target), result, cube.dimension_type(data, target)


def _restore_dimension(
    values: xr.DataArray, target: str, type_: str, like: xr.DataArray | None
) -> xr.DataArray:
    """Rename the array dimension; its labels are those of ``like`` or, without it, 0, 1, 2, …."""
    lost = [n for n, c in values.coords.items() if ARRAY in c.dims and n != cube.NODATA]
    named = values.drop_vars(lost).rename({ARRAY: target})
    if like is not None:
        return restore_coordinates(named, like)
    return named.assign_coords({target: make_coordinate(target, list(range(named.sizes[target])), type_)})


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
