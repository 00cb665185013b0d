"""Join parts of a cube along a dimension: one data type, one way to mark no-data, all coordinates kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import NODATA
from odc_openeo.cube.packing import carry_all_packings, drop_packing


def concat(parts: Sequence[xr.DataArray], dimension: str) -> xr.DataArray:
    """Join the parts end to end along a dimension they all have; their other dimensions must be the same.

    Integers stay integers as long as one no-data value (one per band, when joined along bands) can serve
    all parts; otherwise all become floats with NaN.
    """
    if len(parts) == 1:
        return parts[0]
    sources, parts = parts, [drop_packing(part) for part in parts]
    order = parts[0].dims
    aligned = _unify_coordinates([p.transpose(*order) for p in _unify_encoding(parts, dimension)], dimension)
    joined = xr.concat(
        aligned,
        dim=dimension,
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    )
    return carry_all_packings(joined, sources)


def _unify_encoding(parts: Sequence[xr.DataArray], dimension: str) -> list[xr.DataArray]:
    first = parts[0]
    if NODATA not in first.coords and all(cube.has_same_nodata(first, p) for p in parts[1:]):
        return list(parts)
    if all(np.issubdtype(p.dtype, np.integer) for p in parts):
        dtype = np.result_type(*(p.dtype for p in parts))
        unified = _unify_nodata(parts, dimension) if np.issubdtype(dtype, np.integer) else None
        if unified is not None:
            return [p.astype(dtype) for p in unified]
    return [cube.decode(p) for p in parts]


def _unify_nodata(parts: Sequence[xr.DataArray], dimension: str) -> list[xr.DataArray] | None:
    """The parts with no-data declared in a way that is valid for all of them, None if there is none."""
    missing = [cube.nodata(p) for p in parts]
    if all(m is None for m in missing):
        return list(parts)
    if any(m is None for m in missing):
        return None
    if any(isinstance(m, xr.DataArray) and m.dims != (dimension,) for m in missing):
        first = missing[0]
        same = isinstance(first, xr.DataArray) and all(
            isinstance(m, xr.DataArray) and np.array_equal(m.values, first.values) for m in missing
        )
        return list(parts) if same and dimension not in first.dims else None
    values = [np.broadcast_to(np.asarray(m), p.sizes[dimension]) for m, p in zip(missing, parts, strict=True)]
    distinct = np.unique(np.concatenate(values))
    if len(distinct) == 1:
        return [cube.with_nodata(p, distinct[0].item()) for p in parts]
    if cube.dimension_type(parts[0], dimension) != "bands":
        return None
    return [cube.with_nodata(p, xr.DataArray(v, dims=dimension)) for p, v in zip(parts, values, strict=True)]


def _unify_coordinates(parts: list[xr.DataArray], dimension: str) -> list[xr.DataArray]:
    """The parts with all coordinates along the dimension that any of them has; unknown is NaN or empty."""
    kinds = {part.coords[dimension].dtype.kind for part in parts if dimension in part.coords}
    if len(kinds) > 1 and kinds - set("iuf"):
        parts = [part.assign_coords({dimension: _as_objects(part.coords[dimension])}) for part in parts]
    along = {
        str(name): coord
        for part in parts
        for name, coord in part.coords.items()
        if coord.dims == (dimension,) and name != dimension
    }
    return [
        part.assign_coords(
            {
                name: (dimension, np.full(part.sizes[dimension], _get_unknown_value(coord)))
                for name, coord in along.items()
                if name not in part.coords
            }
        )
        for part in parts
    ]


def _as_objects(coord: xr.DataArray) -> xr.DataArray:
    """Labels as Python objects: mixed with strings, numbers would otherwise become strings."""
    return xr.DataArray(coord.values.astype(object), dims=coord.dims, attrs=coord.attrs)


def _get_unknown_value(coord: xr.DataArray) -> object:
    return {"f": np.nan, "i": np.nan, "u": np.nan, "M": np.datetime64("NaT", "ns")}.get(coord.dtype.kind, "")
