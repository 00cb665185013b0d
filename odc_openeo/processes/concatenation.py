"""Joining parts of a cube along a dimension: one data type, one way to mark no-data, all coordinates kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import NODATA


def concat(parts: Sequence[xr.DataArray], dimension: str) -> xr.DataArray:
    """The parts one after the other along a dimension they all have; their other dimensions are the same.

    Integers stay integers as long as one no-data value (one a band, when joined along bands) can serve
    all parts; otherwise all become floats with NaN.
    """
    if len(parts) == 1:
        return parts[0]
    order = parts[0].dims
    alike = _same_coordinates([p.transpose(*order) for p in _same_encoding(parts, dimension)], dimension)
    return xr.concat(
        alike,
        dim=dimension,
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    )


def _same_encoding(parts: Sequence[xr.DataArray], dimension: str) -> list[xr.DataArray]:
    first = parts[0]
    if NODATA not in first.coords and all(cube.same_nodata(first, p) for p in parts[1:]):
        return list(parts)
    if all(np.issubdtype(p.dtype, np.integer) for p in parts):
        dtype = np.result_type(*(p.dtype for p in parts))
        kept = _integers(parts, dimension) if np.issubdtype(dtype, np.integer) else None
        if kept is not None:
            return [p.astype(dtype) for p in kept]
    return [cube.decode(p) for p in parts]


def _integers(parts: Sequence[xr.DataArray], dimension: str) -> list[xr.DataArray] | None:
    """The parts with no-data declared in a way that holds for all of them, None if there is none."""
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


def _same_coordinates(parts: list[xr.DataArray], dimension: str) -> list[xr.DataArray]:
    """The parts with all coordinates along the dimension that any of them has; unknown is NaN or empty."""
    kinds = {part.coords[dimension].dtype.kind for part in parts if dimension in part.coords}
    if len(kinds) > 1 and kinds - set("iuf"):
        parts = [part.assign_coords({dimension: _objects(part.coords[dimension])}) for part in parts]
    along = {
        str(name): coord
        for part in parts
        for name, coord in part.coords.items()
        if coord.dims == (dimension,) and name != dimension
    }
    return [
        part.assign_coords(
            {
                name: (dimension, np.full(part.sizes[dimension], _unknown(coord)))
                for name, coord in along.items()
                if name not in part.coords
            }
        )
        for part in parts
    ]


def _objects(coord: xr.DataArray) -> xr.DataArray:
    """Labels as Python objects: numbers beside texts would become texts otherwise."""
    return xr.DataArray(coord.values.astype(object), dims=coord.dims, attrs=coord.attrs)


def _unknown(coord: xr.DataArray) -> object:
    return {"f": np.nan, "i": np.nan, "u": np.nan, "M": np.datetime64("NaT", "ns")}.get(coord.dtype.kind, "")
