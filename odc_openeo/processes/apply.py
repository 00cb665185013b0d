"""Processes that run a child process on each value, along a dimension, or over the area of a cube."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

import dask.array as da
import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY, X, Y
from odc_openeo.demand import Demand, along, over, same
from odc_openeo.errors import DimensionMissing, TargetDimensionExists
from odc_openeo.process import process
from odc_openeo.processes.children import array, elements_taken, field, restored, without_dimension
from odc_openeo.processes.filters import OptionalName
from odc_openeo.processes.labels import check_name, coordinate
from odc_openeo.processes.schemas import (
    ANY_ARRAY,
    ANY_JSON,
    LABELED_ARRAY,
    AnyValue,
    Cube,
    LabeledReducer,
    Reducer,
    SpatialCube,
    String,
    child,
)

ValueProcess = Annotated[Callable[..., Any], child({"x": (ANY_JSON, "The value to process.")}, ANY_JSON)]
ArrayProcess = Annotated[
    Callable[..., Any],
    child({"data": (LABELED_ARRAY, "The values along the dimension, with their labels.")}, ANY_ARRAY),
]


@process(categories=["cubes"], needs=same("data"), pointwise=True)
def apply(data: Cube, process: ValueProcess, context: AnyValue = None) -> Cube:
    """Apply a process to each value.

    Args:
        data: A data cube.
        process: Called with each value as `x`; returns the new value.
        context: Anything to pass on to the process.

    Returns:
        The data cube with the new values and the same dimensions and labels.
    """
    if isinstance(data, xr.Dataset):
        return data.assign({name: apply(v, process, context) for name, v in data.data_vars.items()})
    return field(process(x=data, context=context), data, "apply", "process")


@process(categories=["cubes"], needs=along("dimension", "target_dimension"), pointwise=True)
def apply_dimension(
    data: Cube,
    process: ArrayProcess,
    dimension: String,
    target_dimension: OptionalName = None,
    context: AnyValue = None,
) -> Cube:
    """Apply a process to all values along a dimension.

    The labels stay if the process returns as many values as it got and no other target dimension is given;
    else they become 0, 1, 2, ….

    Args:
        data: A data cube.
        process: Called with the values along the dimension as the labelled array `data`; returns an array.
        dimension: The name of the dimension.
        target_dimension: The name of the dimension to put the values into instead. It is created with the
            type `other`, or must have a single label.
        context: Anything to pass on to the process.

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
    found = process(data=cube.to_array(data, dimension), context=context)
    rest = without_dimension(data, dimension)
    order = [str(d) for d in data.dims]
    type_ = cube.dimension_type(data, dimension)
    if target != dimension and target in data.dims:
        rest, found, type_ = _into_existing(data, rest, found, target)
        order.remove(dimension)
    elif target != dimension:
        order[order.index(dimension)], type_ = target, "other"
    values = array(found, rest, "apply_dimension", "process")
    kept = data if target == dimension and values.sizes[ARRAY] == data.sizes[dimension] else None
    return _along(values, target, type_, kept).transpose(*order)


def _into_existing(
    data: xr.DataArray, rest: xr.DataArray, found: Any, target: str
) -> tuple[xr.DataArray, Any, str]:
    if data.sizes[target] != 1:
        raise TargetDimensionExists(
            f"The target dimension '{target}' has {data.sizes[target]} labels; it must have a single one."
        )
    if isinstance(found, list):
        found = cube.stack(found)
    if isinstance(found, xr.DataArray) and target in found.dims:
        found = found.isel({target: 0}, drop=True)
    return without_dimension(rest, target), found, cube.dimension_type(data, target)


def _along(values: xr.DataArray, target: str, type_: str, kept: xr.DataArray | None) -> xr.DataArray:
    """The array dimension under its name, with the labels of ``kept``, or else 0, 1, 2, …."""
    lost = [n for n, c in values.coords.items() if ARRAY in c.dims and n != cube.NODATA]
    named = values.drop_vars(lost).rename({ARRAY: target})
    if kept is not None:
        return restored(named, kept)
    return named.assign_coords({target: coordinate(target, list(range(named.sizes[target])), type_)})


def _needs(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    needed = along("dimension")(demand, arguments)["data"]
    taken = elements_taken(arguments.get("reducer")) if arguments.get("dimension") == cube.BANDS else None
    return {"data": needed if taken is None else replace(needed, bands=taken)}


@process(categories=["cubes", "reducer"], needs=_needs, pointwise=True)
def reduce_dimension(
    data: Cube, reducer: LabeledReducer, dimension: String, context: AnyValue = None
) -> Cube:
    """Reduce all values along a dimension to one.

    Args:
        data: A data cube.
        reducer: Called with the values along the dimension as the labelled array `data`; returns one value.
        dimension: The name of the dimension, which is dropped.
        context: Anything to pass on to the reducer.

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
    return field(result, without_dimension(data, dimension), "reduce_dimension", "reducer")


@process(categories=["aggregate", "cubes", "reducer"], experimental=True, needs=over(X, Y))
def reduce_spatial(data: SpatialCube, reducer: Reducer, context: AnyValue = None) -> Cube:
    """Reduce all pixels of the area to one value.

    The order in which the reducer gets the pixels is not defined.

    Args:
        data: A raster data cube.
        reducer: Called with all pixels as the array `data`; returns one value.
        context: Anything to pass on to the reducer.

    Returns:
        The data cube without x and y.
    """
    if not cube.has_raster_dimensions(data):
        raise DimensionMissing(type="spatial")
    result = reducer(data=_pixels(data), context=context)
    return field(result, without_dimension(data, Y, X), "reduce_spatial", "reducer")


def _pixels(data: xr.DataArray) -> xr.DataArray:
    """All pixels along `ARRAY`; chunk after chunk if the cube is chunked, so that nothing is moved."""
    ordered = data.transpose(..., Y, X)
    shape = (*ordered.shape[:-2], ordered.shape[-2] * ordered.shape[-1])
    values = ordered.data
    if isinstance(values, da.Array) and not values.size:
        # Dask cannot reshape what has no elements.
        flat = da.empty(shape, dtype=values.dtype, chunks=-1)
    elif isinstance(values, da.Array) and not np.isnan(values.size):
        flat = da.reshape_blockwise(values, shape)
    else:
        flat = values.reshape(shape)
    coords = {k: c for k, c in data.coords.items() if not {X, Y} & set(c.dims)}
    return xr.DataArray(flat, dims=(*ordered.dims[:-2], ARRAY), coords=coords, attrs=data.attrs)
