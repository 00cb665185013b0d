"""Mask a raster cube with another one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube.coordinates import drop_single_label, get_index, unify_times
from odc_openeo.errors import DimensionMissing, IncompatibleDataCubes, ProcessParameterInvalid
from odc_openeo.load.part_windows import find_part_window
from odc_openeo.registry.child_results import make_constant, restore_coordinates
from odc_openeo.registry.demand import Demand
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import SpatialCube
from odc_openeo.spatial.align import FindWindow, align_to_grid_of

Replacement = Annotated[float | bool | str | None, Schema({"type": ["number", "boolean", "string", "null"]})]


def _needs_of_mask(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    # Bands are compared with those of the mask, which may be filtered differently. A mask on another grid is
    # looked up at the nearest pixel.
    needed = demand.of_all_bands()
    return {"data": needed, "mask": needed.for_resampled_cube()}


@process(categories=["cubes", "masks"], needs=_needs_of_mask, pointwise=True, raw_values_of=("data",))
def mask(
    data: SpatialCube,
    mask: SpatialCube,
    replacement: Replacement = None,
    *,
    env: Environment | None = None,
) -> SpatialCube:
    """Replace the pixels that are marked in a mask.

    A pixel is replaced where the mask is true or a number other than zero; where the mask has no data,
    nothing is replaced. A mask on another grid is resampled to the grid of the data (nearest neighbour)
    beforehand. Along dimensions that the mask lacks, it applies to all labels; a mask with a single band
    applies to all bands.

    Args:
        data: The cube to mask.
        mask: The mask. Its dimensions, except x, y and a single band, must be in `data` too, with the same
            labels.
        replacement: The value for masked pixels; no-data if it is null.

    Returns:
        The cube with the same dimensions. Integers stay integers if they have a no-data value or the
        replacement is an integer.

    Raises:
        IncompatibleDataCubes: The mask has dimensions or labels that `data` lacks.
    """
    for one in (data, mask):
        if not cube.has_raster_dimensions(one):
            raise DimensionMissing(type="spatial")
    marked = _find_marked(_align_mask(data, mask, partial(find_part_window, env)))
    prepared, value = _prepare_replacement(data, replacement)
    return restore_coordinates(prepared.where(~marked, value).transpose(*data.dims), prepared)


def _find_marked(mask: xr.DataArray) -> xr.DataArray:
    bare = mask.drop_vars([n for n in mask.coords if n not in mask.dims])
    if mask.dtype == bool:
        return bare
    return cube.valid(mask).drop_vars(list(mask.coords), errors="ignore").assign_coords(bare.coords) & (
        bare != 0
    )


def _align_mask(data: xr.DataArray, mask: xr.DataArray, find_window: FindWindow) -> xr.DataArray:
    """The mask with exactly the labels of the data along all its dimensions."""
    mask = _drop_single_band(data, align_to_grid_of(data, mask, find_window))
    for name in map(str, mask.dims):
        if name in (cube.X, cube.Y):
            continue
        if name not in data.dims:
            reason = f"the mask has the dimension '{name}', but the data do not. Reduce or drop it."
            raise IncompatibleDataCubes(reason=reason)
        mask = _align_labels(data, mask, name)
    return _cover_pixels(data, mask)


def _drop_single_band(data: xr.DataArray, mask: xr.DataArray) -> xr.DataArray:
    """Drop the bands dimension of a mask that has only one band, other than the only one of the data."""
    for name in cube.dimensions_of_type(mask, "bands"):
        is_of_data = name in data.dims and get_index(mask, name).equals(get_index(data, name))
        if mask.sizes[name] == 1 and not is_of_data:
            mask = drop_single_label(mask, name)
    return mask


def _align_labels(data: xr.DataArray, mask: xr.DataArray, name: str) -> xr.DataArray:
    """The mask with the labels of the data, in their order, along a dimension of both."""
    types = cube.dimension_type(data, name), cube.dimension_type(mask, name)
    if types[0] != types[1]:
        reason = f"dimension '{name}' is of type '{types[0]}' in the data and '{types[1]}' in the mask."
        raise IncompatibleDataCubes(reason=reason)
    data_labels, mask_labels = (get_index(c, name) for c in unify_times(data, mask, name))
    positions = mask_labels.get_indexer(data_labels)
    if (positions < 0).any() or len(mask_labels) != len(data_labels):
        advice = "Drop it to apply the mask to all labels." if len(mask_labels) == 1 else "Filter the cubes."
        reason = f"the labels of dimension '{name}' differ between the mask and the data. {advice}"
        raise IncompatibleDataCubes(reason=reason)
    if (positions != np.arange(positions.size)).any():
        mask = mask.isel({name: positions})
    return mask.assign_coords({name: data.coords[name]}) if name in data.coords else mask


def _cover_pixels(data: xr.DataArray, mask: xr.DataArray) -> xr.DataArray:
    """Crop or extend the mask to the pixels of the data; nothing is masked where it has no pixels."""
    axes = [d for d in (cube.Y, cube.X) if not mask[d].equals(data[d])]
    if not axes:
        return mask
    positions = {d: get_index(mask, d).get_indexer(get_index(data, d)) for d in axes}
    if all((indexer >= 0).all() for indexer in positions.values()):
        return mask.isel({d: cube.as_slice(indexer) for d, indexer in positions.items()})
    if not all(data.sizes[d] for d in axes):
        # Dask cannot reindex to an empty array.
        shape = [data.sizes[d] for d in mask.dims]
        return xr.DataArray(np.zeros(shape, mask.dtype), dims=mask.dims, coords={d: data[d] for d in axes})
    return cube.decode(mask).reindex({d: data[d] for d in axes})


def _prepare_replacement(data: xr.DataArray, value: Any) -> tuple[xr.DataArray, Any]:
    """The data in a dtype that can hold the replacement, and the replacement."""
    if value is None:
        if cube.nodata(data) is None:
            floats = cube.decode(data)
            return floats, np.nan
        filler = make_constant(None, data)
        return data, filler.drop_vars([c for c in filler.coords if c not in filler.dims])
    numeric = not isinstance(value, bool | str)
    if numeric and data.dtype.kind in "iuf":
        whole = data.dtype.kind in "iu" and float(value).is_integer()
        if not whole:
            return cube.decode(data), float(value)
        dtype = np.result_type(data.dtype, np.min_scalar_type(int(value)))
        return (data.astype(dtype) if dtype.kind in "iu" else cube.decode(data)), int(value)
    if (isinstance(value, bool) and data.dtype == bool) or (
        isinstance(value, str) and data.dtype.kind in "UO"
    ):
        return data, value
    reason = f"{value!r} can't be put into a cube of {data.dtype}. Give a value of the same kind."
    raise ProcessParameterInvalid(process="mask", parameter="replacement", reason=reason)
